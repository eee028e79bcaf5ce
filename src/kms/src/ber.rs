//! A reader for the part of BER (ITU-T X.690) that KMS answers use: one-byte tags, definite and indefinite lengths.

use thiserror::Error;

/// Levels of nested elements that are looked into, the outermost included. The deepest that is read of a KMS answer is 6:
/// the parts of the recipient.
pub(crate) const MAX_DEPTH: usize = 8;
/// Octets that follow the first one of a long-form length.
const MAX_LENGTH_OCTETS: usize = 3;

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
/// `[0]` around other elements.
pub(crate) const CONTEXT_0: u8 = 0xa0;
/// `[0]` in place of a primitive type's own tag.
pub(crate) const CONTEXT_0_PRIMITIVE: u8 = 0x80;

const CONSTRUCTED: u8 = 0x20;
const LONG_TAG: u8 = 0x1f;
const END_OF_CONTENTS: u8 = 0x00;
const INDEFINITE: u8 = 0x80;

/// Why bytes are not the BER that is read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BerError {
    /// The input, or an element around this one, ends too early.
    #[error("it is cut short")]
    Truncated,
    /// Something follows where nothing may.
    #[error("{0} unexpected bytes follow it")]
    Trailing(usize),
    /// Another element than the one that has to be here.
    #[error("expected the tag {expected:#04x}, found {actual:#04x}")]
    Tag {
        /// Tag that belongs here.
        expected: u8,
        /// Tag that is here.
        actual: u8,
    },
    /// A tag of more than one byte.
    #[error("it has a tag of more than one byte")]
    LongTag,
    /// A marker for the end of an indefinite length where none is open.
    #[error("it has an end-of-contents marker that ends nothing")]
    StrayEndOfContents,
    /// An indefinite length on an element that has no elements inside.
    #[error("it has an indefinite length on a primitive element")]
    IndefinitePrimitive,
    /// A length that is written with more octets than any answer needs.
    #[error("its length has {0} octets, at most {MAX_LENGTH_OCTETS} are accepted")]
    LengthOctets(u8),
    /// More nested elements than any answer has.
    #[error("it nests deeper than {MAX_DEPTH} elements")]
    TooDeep,
}

/// Reads elements one after the other, all on one level of nesting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    depth: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self { rest: input, depth: 0 }
    }

    /// Tag of the next element, if there is one.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Contents of the next element, which has to have the tag `expected`.
    pub(crate) fn contents(&mut self, expected: u8) -> Result<&'a [u8], BerError> {
        let (element, rest) = Element::read(self.rest, self.depth)?;
        if element.tag != expected {
            return Err(BerError::Tag { expected, actual: element.tag });
        }
        self.rest = rest;
        Ok(element.contents)
    }

    /// A reader for what is inside the next element, which has to have the tag `expected`.
    pub(crate) fn enter(&mut self, expected: u8) -> Result<Reader<'a>, BerError> {
        Ok(Reader { rest: self.contents(expected)?, depth: self.depth + 1 })
    }

    /// Nothing may follow.
    pub(crate) fn end(self) -> Result<(), BerError> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(BerError::Trailing(more)),
        }
    }
}

struct Element<'a> {
    tag: u8,
    /// Without the end-of-contents marker of an indefinite length.
    contents: &'a [u8],
}

impl<'a> Element<'a> {
    /// The first element of `input`, and what follows it.
    fn read(input: &'a [u8], depth: usize) -> Result<(Self, &'a [u8]), BerError> {
        if depth >= MAX_DEPTH {
            return Err(BerError::TooDeep);
        }
        let [tag, length, rest @ ..] = input else { return Err(BerError::Truncated) };
        let (tag, length) = (*tag, *length);
        if tag == END_OF_CONTENTS {
            return Err(BerError::StrayEndOfContents);
        }
        if tag & LONG_TAG == LONG_TAG {
            return Err(BerError::LongTag);
        }
        if length == INDEFINITE {
            if tag & CONSTRUCTED == 0 {
                return Err(BerError::IndefinitePrimitive);
            }
            return Self::read_indefinite(tag, rest, depth);
        }
        let (length, rest) = definite_length(length, rest)?;
        let (contents, rest) = rest.split_at_checked(length).ok_or(BerError::Truncated)?;
        Ok((Self { tag, contents }, rest))
    }

    fn read_indefinite(tag: u8, input: &'a [u8], depth: usize) -> Result<(Self, &'a [u8]), BerError> {
        let mut rest = input;
        loop {
            if let [END_OF_CONTENTS, END_OF_CONTENTS, after @ ..] = rest {
                let contents = &input[..input.len() - rest.len()];
                return Ok((Self { tag, contents }, after));
            }
            (_, rest) = Self::read(rest, depth + 1)?;
        }
    }
}

/// The length that `first` begins, and what follows the length.
fn definite_length(first: u8, rest: &[u8]) -> Result<(usize, &[u8]), BerError> {
    if first < 0x80 {
        return Ok((usize::from(first), rest));
    }
    let octets = usize::from(first & 0x7f);
    if octets > MAX_LENGTH_OCTETS {
        return Err(BerError::LengthOctets(first & 0x7f));
    }
    let (length, rest) = rest.split_at_checked(octets).ok_or(BerError::Truncated)?;
    Ok((length.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8]) -> Result<(u8, &[u8], &[u8]), BerError> {
        Element::read(input, 0).map(|(element, rest)| (element.tag, element.contents, rest))
    }

    #[test]
    fn lengths_of_every_accepted_form_are_read() {
        assert_eq!(read(&[4, 2, 7, 8, 9]), Ok((4, &[7, 8][..], &[9][..])));
        assert_eq!(read(&[4, 0x81, 2, 7, 8]), Ok((4, &[7, 8][..], &[][..])));
        assert_eq!(read(&[4, 0x83, 0, 0, 1, 7]), Ok((4, &[7][..], &[][..])));
        assert_eq!(read(&[0x30, 0x80, 4, 1, 7, 0, 0, 9]), Ok((0x30, &[4, 1, 7][..], &[9][..])));
        assert_eq!(read(&[0x30, 0x80, 0, 0]), Ok((0x30, &[][..], &[][..])));
    }

    #[test]
    fn nested_indefinite_lengths_end_where_their_own_marker_is() {
        let input = [0x30, 0x80, 0xa0, 0x80, 4, 2, 0, 0, 0, 0, 5, 0, 0, 0, 1];
        assert_eq!(read(&input), Ok((0x30, &input[2..12], &[1][..])));
    }

    #[test]
    fn every_other_form_is_refused_by_name() {
        assert_eq!(read(&[]), Err(BerError::Truncated));
        assert_eq!(read(&[4]), Err(BerError::Truncated));
        assert_eq!(read(&[4, 2, 7]), Err(BerError::Truncated));
        assert_eq!(read(&[4, 0x82, 1]), Err(BerError::Truncated));
        assert_eq!(read(&[0x30, 0x80, 4, 1, 7, 0]), Err(BerError::Truncated));
        assert_eq!(read(&[0x30, 0x80, 4, 1, 7]), Err(BerError::Truncated));
        assert_eq!(read(&[4, 0x80, 0, 0]), Err(BerError::IndefinitePrimitive));
        assert_eq!(read(&[4, 0x84, 0, 0, 0, 1, 7]), Err(BerError::LengthOctets(4)));
        assert_eq!(read(&[4, 0xff, 7]), Err(BerError::LengthOctets(127)));
        assert_eq!(read(&[0x1f, 1, 7]), Err(BerError::LongTag));
        assert_eq!(read(&[0, 0]), Err(BerError::StrayEndOfContents));
        assert_eq!(read(&[0x30, 0x80, 0, 1, 0, 0]), Err(BerError::StrayEndOfContents));
    }

    #[test]
    fn eight_levels_are_accepted_and_nine_are_not() {
        let nested = |levels: usize| [[0x30, 0x80].repeat(levels), [0, 0].repeat(levels)].concat();
        assert!(read(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(read(&nested(MAX_DEPTH + 1)), Err(BerError::TooDeep));
        let mut reader = Reader::new(&[
            0x30, 18, 0x30, 16, 0x30, 14, 0x30, 12, 0x30, 10, 0x30, 8, 0x30, 6, 0x30, 4, 0x30, 2, 5, 0,
        ]);
        for _ in 0..MAX_DEPTH {
            reader = reader.enter(SEQUENCE).unwrap();
        }
        assert_eq!(reader.enter(SEQUENCE).unwrap_err(), BerError::TooDeep);
    }

    #[test]
    fn another_tag_and_trailing_bytes_are_refused() {
        let mut reader = Reader::new(&[4, 1, 7, 9, 9]);
        assert_eq!(reader.contents(INTEGER), Err(BerError::Tag { expected: INTEGER, actual: OCTET_STRING }));
        assert_eq!(reader.contents(OCTET_STRING), Ok(&[7][..]));
        assert_eq!(reader.end(), Err(BerError::Trailing(2)));
    }
}
