use http::Request;

use super::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const DATE: &str = "20150830T123600Z";
/// The same in seconds since 1970.
const NOW: u64 = 1_440_938_160;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

fn verifier() -> Verifier {
    let principal = format!("arn:aws:iam::111122223333:role/parent:AKIDEXAMPLE:{SECRET}").parse().unwrap();
    Verifier {
        service: "kms",
        region: Some("us-east-1".to_owned()),
        principals: vec![principal],
        session_tokens: vec![],
    }
}

/// What the signer of a request may get wrong.
struct Signer {
    access_key_id: &'static str,
    secret: &'static str,
    region: &'static str,
    service: &'static str,
    token: Option<&'static str>,
    time: SystemTime,
}

impl Default for Signer {
    fn default() -> Self {
        Self {
            access_key_id: "AKIDEXAMPLE",
            secret: SECRET,
            region: "us-east-1",
            service: "kms",
            token: None,
            time: now(),
        }
    }
}

impl Signer {
    fn sign(&self, body: &[u8]) -> Parts {
        let mut request = Request::post("/")
            .header("host", "kms.us-east-1.amazonaws.com")
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", "TrentService.Decrypt")
            .body(())
            .unwrap();
        let token = self.token.map(str::to_owned);
        let identity = Credentials::new(self.access_key_id, self.secret, token, None, "test").into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(self.time)
            .settings(SigningSettings::default())
            .build()
            .unwrap();
        let headers: Vec<_> =
            request.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        let uri = "https://kms.us-east-1.amazonaws.com/";
        let signable =
            SignableRequest::new("POST", uri, headers.into_iter(), SignableBody::Bytes(body)).unwrap();
        let (instructions, _) = sign(signable, &parameters.into()).unwrap().into_parts();
        instructions.apply_to_request_http1x(&mut request);
        request.into_parts().0
    }
}

fn verify(parts: &Parts, body: &[u8]) -> Result<String, &'static str> {
    let verified = verifier().verify(parts, body, now()).map(|principal| principal.arn.clone());
    verified.map_err(|error| error.code)
}

fn set(parts: &mut Parts, name: &'static str, value: &str) {
    parts.headers.insert(name, value.parse().unwrap());
}

fn authorization(parts: &Parts) -> String {
    parts.headers["authorization"].to_str().unwrap().to_owned()
}

#[test]
fn a_signed_request_names_its_principal() {
    let parts = Signer::default().sign(b"{}");
    assert_eq!(verify(&parts, b"{}"), Ok("arn:aws:iam::111122223333:role/parent".to_owned()));
}

#[test]
fn headers_that_were_not_signed_do_not_matter() {
    let mut parts = Signer::default().sign(b"{}");
    set(&mut parts, "accept-encoding", "identity");
    set(&mut parts, "user-agent", "another");
    assert!(verify(&parts, b"{}").is_ok());
}

#[test]
fn what_was_signed_cannot_be_changed() {
    let parts = || Signer::default().sign(b"{}");
    assert_eq!(verify(&parts(), b"{ }"), Err("InvalidSignatureException"));
    for (name, value) in [
        ("x-amz-target", "TrentService.DisableKey"),
        ("x-amz-date", "20150830T123601Z"),
        ("host", "kms.us-east-1.example.org"),
        ("content-type", "text/plain"),
    ] {
        let mut changed = parts();
        set(&mut changed, name, value);
        assert_eq!(verify(&changed, b"{}"), Err("InvalidSignatureException"), "{name}");
    }
    let mut changed = parts();
    changed.method = http::Method::PUT;
    assert_eq!(verify(&changed, b"{}"), Err("InvalidSignatureException"));
    let mut changed = parts();
    changed.uri = "/other".parse().unwrap();
    assert_eq!(verify(&changed, b"{}"), Err("InvalidSignatureException"));
    let mut changed = parts();
    let signature = authorization(&changed);
    let last = if signature.ends_with('0') { "1" } else { "0" };
    set(&mut changed, "authorization", &format!("{}{last}", &signature[..signature.len() - 1]));
    assert_eq!(verify(&changed, b"{}"), Err("InvalidSignatureException"));
}

#[test]
fn another_secret_key_or_token_is_refused() {
    let code = |signer: Signer| verify(&signer.sign(b"{}"), b"{}").unwrap_err();
    assert_eq!(code(Signer { secret: "another", ..Signer::default() }), "InvalidSignatureException");
    assert_eq!(
        code(Signer { access_key_id: "AKIDOTHER", ..Signer::default() }),
        "UnrecognizedClientException"
    );
    assert_eq!(code(Signer { token: Some("token"), ..Signer::default() }), "UnrecognizedClientException");
}

#[test]
fn a_signature_for_another_scope_is_refused() {
    let code = |signer: Signer| verify(&signer.sign(b"{}"), b"{}").unwrap_err();
    assert_eq!(code(Signer { region: "eu-central-1", ..Signer::default() }), "InvalidSignatureException");
    assert_eq!(code(Signer { service: "s3", ..Signer::default() }), "InvalidSignatureException");
    let mut parts = Signer::default().sign(b"{}");
    let other_day = authorization(&parts).replace("/20150830/", "/20150829/");
    set(&mut parts, "authorization", &other_day);
    assert_eq!(verify(&parts, b"{}"), Err("InvalidSignatureException"));
}

#[test]
fn clocks_may_be_five_minutes_apart_and_no_more() {
    let at = |time: SystemTime| verify(&Signer { time, ..Signer::default() }.sign(b"{}"), b"{}");
    let second = Duration::from_secs(1);
    assert!(at(now() - MAX_SKEW).is_ok());
    assert!(at(now() + MAX_SKEW).is_ok());
    assert_eq!(at(now() - MAX_SKEW - second), Err("InvalidSignatureException"));
    assert_eq!(at(now() + MAX_SKEW + second), Err("InvalidSignatureException"));
}

#[test]
fn what_decides_has_to_be_signed() {
    for name in ["host", "x-amz-date", "x-amz-target"] {
        let mut parts = Signer::default().sign(b"{}");
        let authorization = authorization(&parts);
        let fewer = authorization.replace(&format!("{name};"), "").replace(&format!(";{name}"), "");
        assert_ne!(fewer, authorization);
        set(&mut parts, "authorization", &fewer);
        let error = verifier().verify(&parts, b"{}", now()).unwrap_err();
        assert!(error.message.unwrap().contains("must be a 'SignedHeader'"), "{name}");
    }
}

#[test]
fn a_request_without_a_whole_signature_is_refused_by_name() {
    let code = |change: &dyn Fn(&mut Parts)| {
        let mut parts = Signer::default().sign(b"{}");
        change(&mut parts);
        verify(&parts, b"{}").unwrap_err()
    };
    let without = |name: &'static str| move |parts: &mut Parts| drop(parts.headers.remove(name));
    assert_eq!(code(&without("authorization")), "MissingAuthenticationTokenException");
    assert_eq!(code(&without("x-amz-date")), "IncompleteSignatureException");
    for value in [
        "Basic dXNlcjpwYXNz",
        "AWS4-HMAC-SHA256 ",
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE, SignedHeaders=host, Signature=00",
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/kms/aws4_request, SignedHeaders=host",
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/kms/aws4_request, Signature=00",
    ] {
        assert_eq!(
            code(&|parts| set(parts, "authorization", value)),
            "IncompleteSignatureException",
            "{value}"
        );
    }
    assert_eq!(code(&|parts| set(parts, "x-amz-date", "20150830")), "IncompleteSignatureException");
}

#[test]
fn the_date_header_is_read_as_utc() {
    assert_eq!(read_time(DATE), Ok(now()));
    for date in ["", "20150830T123600", "2015-08-30T12:36:00Z", "20151330T123600Z"] {
        assert_eq!(read_time(date).unwrap_err().code, "IncompleteSignatureException", "{date}");
    }
}

#[test]
fn a_principal_is_split_from_the_right_and_not_shown() {
    let principal: Principal = "arn:aws:iam::111122223333:role/a:KEY:s/e+cret".parse().unwrap();
    assert_eq!(principal.arn, "arn:aws:iam::111122223333:role/a");
    assert_eq!(principal.access_key_id, "KEY");
    assert!(!format!("{principal:?}").contains("s/e+cret"));
    for text in ["", "arn", "KEY:secret", ":KEY:secret", "arn::secret", "arn:KEY:"] {
        assert!(text.parse::<Principal>().is_err(), "{text}");
    }
}

#[test]
fn a_short_lived_key_comes_with_its_token_and_with_no_other() {
    let session_tokens = vec!["AKIDEXAMPLE:a/token+of=its:own".parse().unwrap()];
    let verifier = Verifier { session_tokens, ..verifier() };
    let verify = |token| {
        let parts = Signer { token, ..Signer::default() }.sign(b"{}");
        verifier.verify(&parts, b"{}", now()).map(|_| ()).map_err(|error| error.code)
    };
    assert_eq!(verify(Some("a/token+of=its:own")), Ok(()));
    assert_eq!(verify(Some("another")), Err("UnrecognizedClientException"));
    assert_eq!(verify(None), Err("UnrecognizedClientException"));
}

#[test]
fn a_session_token_is_not_shown() {
    let token: SessionToken = "KEY:t:ok/en".parse().unwrap();
    assert!(format!("{token:?}").contains("KEY") && !format!("{token:?}").contains("ok/en"));
    for text in ["", "KEY", "KEY:", ":token"] {
        assert!(text.parse::<SessionToken>().is_err(), "{text}");
    }
}

#[test]
fn without_a_region_any_will_do_if_the_signature_is_for_it() {
    let verifier = Verifier { region: None, ..verifier() };
    let mut parts = Signer { region: "eu-central-1", ..Signer::default() }.sign(b"{}");
    assert!(verifier.verify(&parts, b"{}", now()).is_ok());
    let other = authorization(&parts).replace("/eu-central-1/", "/us-east-1/");
    set(&mut parts, "authorization", &other);
    assert_eq!(verifier.verify(&parts, b"{}", now()).unwrap_err().code, "InvalidSignatureException");
}
