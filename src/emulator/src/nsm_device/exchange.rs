//! One exchange: the bytes of a request in, the bytes of the answer out. CBOR of AWS's `nsm-api`, as on the real device.

use attestation::{ErrorCode, Request, Response};

/// Most bytes of a request, as in the kernel's driver (`NSM_REQUEST_MAX_SIZE`).
pub(super) const MAX_REQUEST: usize = 0x1000;

/// Answers the request in `bytes` with at most `room` bytes. Whatever the bytes are, there is an answer; it is empty only
/// if `room` is too small for an error.
pub(super) fn answer(module: impl FnOnce(Request) -> Response, bytes: &[u8], room: usize) -> Vec<u8> {
    let response = match decode(bytes) {
        Ok(request) => {
            let operation = name(&request);
            let response = module(request);
            let refusal = if let Response::Error(code) = &response { Some(code) } else { None };
            tracing::debug!(operation, ?refusal, "NSM request");
            response
        }
        Err(code) => {
            tracing::warn!(bytes = bytes.len(), code = ?code, "an NSM request that cannot be read");
            Response::Error(code)
        }
    };
    encode(&response, room)
        .or_else(|bytes| {
            tracing::warn!(bytes, room, "an answer of the NSM does not fit into the driver's buffer");
            encode(&Response::Error(ErrorCode::InternalError), room)
        })
        .unwrap_or_default()
}

fn decode(mut bytes: &[u8]) -> Result<Request, ErrorCode> {
    if bytes.len() > MAX_REQUEST {
        return Err(ErrorCode::InputTooLarge);
    }
    let request = ciborium::from_reader(&mut bytes).map_err(|_| ErrorCode::InvalidOperation)?;
    // What follows the request was meant for somebody else.
    if bytes.is_empty() { Ok(request) } else { Err(ErrorCode::InvalidOperation) }
}

/// The response in CBOR; as an error, the size of one that takes more than `room` bytes.
fn encode(response: &Response, room: usize) -> Result<Vec<u8>, usize> {
    let mut bytes = Vec::new();
    // Writing to memory does not fail; if the encoder did, there would be nothing to send.
    if ciborium::into_writer(response, &mut bytes).is_err() {
        return Err(bytes.len());
    }
    if bytes.len() <= room { Ok(bytes) } else { Err(bytes.len()) }
}

/// Names a request without its contents: user data does not belong into logs.
fn name(request: &Request) -> String {
    let text = format!("{request:?}");
    text.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use attestation::Measurements;
    use attestation::software::{SoftwareNsm, TestAuthority, handle};
    use proptest::prelude::*;

    /// The driver's buffer for an answer (`NSM_RESPONSE_MAX_SIZE`).
    const ROOM: usize = 0x3000;

    fn module() -> SoftwareNsm {
        SoftwareNsm::new(&TestAuthority::generate().unwrap(), Measurements::ZERO).unwrap()
    }

    fn bytes_of(request: &Request) -> Vec<u8> {
        let mut bytes = Vec::new();
        ciborium::into_writer(request, &mut bytes).unwrap();
        bytes
    }

    fn answer_to(bytes: &[u8], room: usize) -> Vec<u8> {
        let nsm = module();
        answer(|request| handle(&nsm, request), bytes, room)
    }

    fn response_to(bytes: &[u8]) -> Response {
        ciborium::from_reader(&answer_to(bytes, ROOM)[..]).unwrap()
    }

    #[test]
    fn the_kernels_own_request_for_random_bytes_gets_the_layout_that_the_kernel_compares() {
        // Both from drivers/misc/nsm.c: fill_req_get_random(), parse_resp_get_random().
        let answer = answer_to(b"\x69GetRandom", ROOM);
        let expected = b"\xa1\x69GetRandom\xa1\x66random";
        assert_eq!(&answer[..expected.len()], expected);
        // 256 bytes: a byte string whose length takes two bytes.
        assert_eq!(answer[expected.len()..expected.len() + 3], [0x59, 1, 0]);
        assert_eq!(answer.len(), expected.len() + 3 + 256);
    }

    #[test]
    fn the_largest_document_fits_into_the_drivers_buffer() {
        let request = Request::Attestation {
            user_data: Some(vec![1; 512].into()),
            nonce: Some(vec![2; 512].into()),
            public_key: Some(vec![3; 1024].into()),
        };
        assert!(
            matches!(response_to(&bytes_of(&request)), Response::Attestation { document } if document.len() > 2048)
        );
    }

    #[test]
    fn bytes_that_are_no_request_are_an_invalid_operation() {
        let random = bytes_of(&Request::GetRandom);
        let cut_off = &random[..random.len() - 1];
        let with_more = [&random[..], b"\x00"].concat();
        // A text that claims to have 2^64 - 1 bytes; arrays in arrays; an operation nobody has.
        let endless = [0x7b, 255, 255, 255, 255, 255, 255, 255, 255];
        let nested = [0x81; MAX_REQUEST];
        for bytes in [&b""[..], cut_off, &with_more, &endless, &nested, b"\x68NoSuchOp", b"\xff"] {
            let response = response_to(bytes);
            assert!(
                matches!(response, Response::Error(ErrorCode::InvalidOperation)),
                "{bytes:?}: {response:?}"
            );
        }
    }

    #[test]
    fn a_request_of_4_kib_is_read_and_a_larger_one_is_too_large() {
        let extend = |size| bytes_of(&Request::ExtendPCR { index: 16, data: vec![7; size] });
        let rest = extend(1024).len() - 1024;
        let largest = extend(MAX_REQUEST - rest);
        assert_eq!(largest.len(), MAX_REQUEST);
        assert!(matches!(response_to(&largest), Response::ExtendPCR { .. }));
        let too_large = response_to(&extend(MAX_REQUEST - rest + 1));
        assert!(matches!(too_large, Response::Error(ErrorCode::InputTooLarge)));
    }

    #[test]
    fn an_answer_larger_than_the_buffer_becomes_an_error_and_nothing_where_no_error_fits() {
        let request = bytes_of(&Request::DescribeNSM);
        let error: Response = ciborium::from_reader(&answer_to(&request, 64)[..]).unwrap();
        assert!(matches!(error, Response::Error(ErrorCode::InternalError)));
        assert!(answer_to(&request, 8).is_empty());
        assert!(answer_to(&request, 0).is_empty());
    }

    #[test]
    fn names_leave_out_what_a_request_holds() {
        let extend = Request::ExtendPCR { index: 16, data: vec![0x5a; 3] };
        assert_eq!(name(&extend), "ExtendPCR");
        assert_eq!(name(&Request::DescribeNSM), "DescribeNSM");
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer_that_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let answer = answer(|_| Response::LockPCR, &bytes, ROOM);
            prop_assert!(ciborium::from_reader::<Response, _>(&answer[..]).is_ok());
        }
    }
}
