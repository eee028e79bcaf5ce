//! Syntactical validation, section 3.2.2 of the AWS document.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use ciborium::Value;

use super::Document;
use crate::{PCR_COUNT, Pcr, VerifyError};

const FIELDS: [&str; 9] = [
    "module_id",
    "digest",
    "timestamp",
    "pcrs",
    "certificate",
    "cabundle",
    "public_key",
    "user_data",
    "nonce",
];
/// In bytes; the AWS document limits only the issuers', this is the same kind of certificate.
const CERTIFICATE_SIZE: RangeInclusive<usize> = 1..=1024;
const PUBLIC_KEY_SIZE: RangeInclusive<usize> = 1..=1024;
const TEXT_SIZE: RangeInclusive<usize> = 0..=512;
/// The last millisecond of the year 9999, the end of X.509's time.
const LAST_TIMESTAMP_MS: u64 = 253_402_300_799_999;

impl Document {
    /// Reads the payload of a COSE_Sign1 object.
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, VerifyError> {
        let mut fields = Fields::read(payload)?;
        Ok(Self {
            module_id: fields.text("module_id")?,
            digest: digest(fields.text("digest")?)?,
            timestamp_ms: timestamp(&fields.take("timestamp")?)?,
            pcrs: pcrs(fields.take("pcrs")?)?,
            certificate: bytes("certificate", fields.take("certificate")?, &CERTIFICATE_SIZE)?,
            cabundle: cabundle(fields.take("cabundle")?)?,
            public_key: fields.optional("public_key", &PUBLIC_KEY_SIZE)?,
            user_data: fields.optional("user_data", &TEXT_SIZE)?,
            nonce: fields.optional("nonce", &TEXT_SIZE)?,
        })
    }
}

struct Fields(BTreeMap<String, Value>);

impl Fields {
    fn read(mut payload: &[u8]) -> Result<Self, VerifyError> {
        let value =
            ciborium::from_reader(&mut payload).map_err(|error| VerifyError::Cose(error.to_string()))?;
        if !payload.is_empty() {
            return Err(VerifyError::Cose(format!("{} bytes after the payload's end", payload.len())));
        }
        let Value::Map(entries) = value else {
            return Err(VerifyError::Cose("the payload is not a map".to_owned()));
        };
        let mut fields = BTreeMap::new();
        for (key, value) in entries {
            let Value::Text(name) = key else {
                return Err(VerifyError::Cose("a name in the payload is not text".to_owned()));
            };
            if !FIELDS.contains(&name.as_str()) {
                return Err(VerifyError::field(name, "it is not a field of attestation documents"));
            }
            if fields.insert(name.clone(), value).is_some() {
                return Err(VerifyError::field(name, "it is there twice"));
            }
        }
        Ok(Self(fields))
    }

    fn take(&mut self, name: &str) -> Result<Value, VerifyError> {
        self.0.remove(name).ok_or_else(|| VerifyError::field(name, "it is missing"))
    }

    fn text(&mut self, name: &str) -> Result<String, VerifyError> {
        match self.take(name)? {
            Value::Text(text) if !text.is_empty() => Ok(text),
            _ => Err(VerifyError::field(name, "it is not text, or empty")),
        }
    }

    /// The security module writes null for what it was not given.
    fn optional(&mut self, name: &str, size: &RangeInclusive<usize>) -> Result<Option<Vec<u8>>, VerifyError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => bytes(name, value, size).map(Some),
        }
    }
}

fn bytes(name: &str, value: Value, size: &RangeInclusive<usize>) -> Result<Vec<u8>, VerifyError> {
    let Value::Bytes(bytes) = value else {
        return Err(VerifyError::field(name, "it is not a byte string"));
    };
    if !size.contains(&bytes.len()) {
        let reason = format!("it has {} bytes, allowed are {} to {}", bytes.len(), size.start(), size.end());
        return Err(VerifyError::field(name, reason));
    }
    Ok(bytes)
}

fn digest(digest: String) -> Result<String, VerifyError> {
    if digest == "SHA384" {
        return Ok(digest);
    }
    Err(VerifyError::field("digest", "it is not SHA384"))
}

fn timestamp(value: &Value) -> Result<u64, VerifyError> {
    value
        .as_integer()
        .and_then(|integer| u64::try_from(integer).ok())
        .filter(|timestamp| (1..=LAST_TIMESTAMP_MS).contains(timestamp))
        .ok_or_else(|| VerifyError::field("timestamp", "it is not a time in milliseconds since 1970"))
}

fn pcrs(value: Value) -> Result<BTreeMap<u16, Pcr>, VerifyError> {
    let Value::Map(entries) = value else {
        return Err(VerifyError::field("pcrs", "it is not a map"));
    };
    if entries.is_empty() {
        return Err(VerifyError::field("pcrs", "it is empty"));
    }
    let mut pcrs = BTreeMap::new();
    for (key, value) in entries {
        let index = key
            .as_integer()
            .and_then(|integer| u16::try_from(integer).ok())
            .filter(|index| *index < PCR_COUNT)
            .ok_or_else(|| {
                VerifyError::field("pcrs", format!("an index is not one of 0 to {}", PCR_COUNT - 1))
            })?;
        let name = format!("pcrs[{index}]");
        let Ok(pcr) = <[u8; 48]>::try_from(bytes(&name, value, &(48..=48))?) else {
            return Err(VerifyError::field(name, "it does not have 48 bytes"));
        };
        if pcrs.insert(index, Pcr::from_bytes(pcr)).is_some() {
            return Err(VerifyError::field(name, "it is there twice"));
        }
    }
    Ok(pcrs)
}

fn cabundle(value: Value) -> Result<Vec<Vec<u8>>, VerifyError> {
    let Value::Array(entries) = value else {
        return Err(VerifyError::field("cabundle", "it is not an array"));
    };
    if entries.is_empty() {
        return Err(VerifyError::field("cabundle", "it is empty"));
    }
    let numbered = entries.into_iter().enumerate();
    numbered.map(|(index, entry)| bytes(&format!("cabundle[{index}]"), entry, &CERTIFICATE_SIZE)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Entries = Vec<(Value, Value)>;

    fn bytes_of(size: usize) -> Value {
        Value::Bytes(vec![7; size])
    }

    /// A document as the security module writes it.
    fn entries() -> Entries {
        let pcrs = (0..16).map(|index: u8| (index.into(), bytes_of(48))).collect();
        let fields = [
            ("module_id", "i-0-enc0".into()),
            ("digest", "SHA384".into()),
            ("timestamp", 1_736_179_625_472_u64.into()),
            ("pcrs", Value::Map(pcrs)),
            ("certificate", bytes_of(600)),
            ("cabundle", Value::Array(vec![bytes_of(1), bytes_of(1024)])),
            ("public_key", Value::Null),
            ("user_data", Value::Null),
            ("nonce", Value::Null),
        ];
        fields.into_iter().map(|(name, value)| (name.into(), value)).collect()
    }

    fn parse(entries: Entries) -> Result<Document, VerifyError> {
        let mut payload = Vec::new();
        ciborium::into_writer(&Value::Map(entries), &mut payload).unwrap();
        Document::parse(&payload)
    }

    fn with(name: &str, value: Value) -> Result<Document, VerifyError> {
        let mut entries = entries();
        entries.retain(|(key, _)| key.as_text() != Some(name));
        entries.push((name.into(), value));
        parse(entries)
    }

    #[track_caller]
    fn refused(result: Result<Document, VerifyError>, name: &str) {
        match result {
            Err(VerifyError::Field { field, .. }) => assert_eq!(field, name),
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn a_document_of_the_security_module_is_read() {
        let document = parse(entries()).unwrap();
        assert_eq!(document.module_id, "i-0-enc0");
        assert_eq!(document.timestamp_ms, 1_736_179_625_472);
        assert_eq!(document.pcr(15), Some(Pcr::from_bytes([7; 48])));
        assert_eq!(document.pcr(16), None);
        assert_eq!((document.public_key, document.user_data, document.nonce), (None, None, None));
    }

    #[test]
    fn each_mandatory_field_is_demanded_and_null_does_not_do() {
        for name in ["module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"] {
            let mut without = entries();
            without.retain(|(key, _)| key.as_text() != Some(name));
            refused(parse(without), name);
            refused(with(name, Value::Null), name);
        }
    }

    #[test]
    fn optional_fields_may_be_missing_or_have_their_size() {
        let mut without = entries();
        without.truncate(6);
        assert_eq!(parse(without).unwrap(), parse(entries()).unwrap());

        for (name, smallest, largest) in [("public_key", 1, 1024), ("user_data", 0, 512), ("nonce", 0, 512)] {
            assert!(with(name, bytes_of(smallest)).is_ok());
            assert!(with(name, bytes_of(largest)).is_ok());
            refused(with(name, bytes_of(largest + 1)), name);
            refused(with(name, "text".into()), name);
        }
        refused(with("public_key", bytes_of(0)), "public_key");
    }

    #[test]
    fn wrong_values_are_refused() {
        refused(with("module_id", "".into()), "module_id");
        refused(with("module_id", bytes_of(4)), "module_id");
        for digest in ["SHA256", "SHA512", "sha384", ""] {
            refused(with("digest", digest.into()), "digest");
        }
        for timestamp in
            [0.into(), (-1).into(), u64::MAX.into(), (LAST_TIMESTAMP_MS + 1).into(), Value::Float(1.0)]
        {
            refused(with("timestamp", timestamp), "timestamp");
        }
        refused(with("certificate", bytes_of(0)), "certificate");
        refused(with("certificate", bytes_of(1025)), "certificate");
        refused(with("cabundle", Value::Array(vec![])), "cabundle");
        refused(with("cabundle", bytes_of(10)), "cabundle");
        for entry in [bytes_of(0), bytes_of(1025), Value::Null, "text".into()] {
            refused(with("cabundle", Value::Array(vec![bytes_of(1), entry])), "cabundle[1]");
        }
    }

    #[test]
    fn wrong_pcrs_are_refused() {
        let with_pcrs = |pcrs| with("pcrs", Value::Map(pcrs));
        assert!(with_pcrs((0..32).map(|index| (index.into(), bytes_of(48))).collect()).is_ok());
        refused(with_pcrs(vec![]), "pcrs");
        refused(with("pcrs", Value::Array(vec![bytes_of(48)])), "pcrs");
        for index in [32.into(), (-1).into(), "0".into(), bytes_of(1)] {
            refused(with_pcrs(vec![(index, bytes_of(48))]), "pcrs");
        }
        for size in [0, 32, 47, 49, 64] {
            refused(with_pcrs(vec![(3.into(), bytes_of(size))]), "pcrs[3]");
        }
        refused(with_pcrs(vec![(3.into(), bytes_of(48)), (3.into(), bytes_of(48))]), "pcrs[3]");
    }

    #[test]
    fn a_field_twice_or_unknown_is_refused() {
        for name in FIELDS {
            let mut twice = entries();
            twice.extend(entries().into_iter().filter(|(key, _)| key.as_text() == Some(name)));
            refused(parse(twice), name);
        }
        refused(with("nitrotpm_pcrs", Value::Map(vec![])), "nitrotpm_pcrs");
        refused(with("Nonce", Value::Null), "Nonce");
    }

    #[test]
    fn what_is_not_one_map_with_text_keys_is_refused() {
        let mut trailing = Vec::new();
        ciborium::into_writer(&Value::Map(entries()), &mut trailing).unwrap();
        trailing.push(0xf6);
        for payload in [&trailing[..], &trailing[..40], &[], &[0x80], &[0xa1, 0x01, 0x02], &[0xff; 64]] {
            assert!(matches!(Document::parse(payload), Err(VerifyError::Cose(_))), "{payload:?}");
        }
    }

    proptest! {
        #[test]
        fn no_payload_makes_the_parser_panic(payload in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = Document::parse(&payload);
        }
    }
}
