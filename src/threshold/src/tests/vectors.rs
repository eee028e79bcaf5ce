//! RFC 9591, appendix E.1: FROST(Ed25519, SHA-512).

use std::collections::{BTreeMap, VecDeque};

use rand::{CryptoRng, RngCore};
use zeroize::Zeroizing;

use super::group::{Group, params, run};
use crate::{Dealt, SchemeId, Session, check};

const GROUP_PUBLIC_KEY: &str = "15d21ccd7ee42959562fc8aa63224c8851fb3ec85a3faf66040d380fb9738673";
const SHARES: [&str; 3] = [
    "929dcc590407aae7d388761cddb0c0db6f5627aea8e217f4a033f2ec83d93509",
    "a91e66e012e4364ac9aaa405fcafd370402d9859f7b6685c07eed76bf409e80d",
    "d3cb090a075eb154e82fdb4b3cb507f110040905468bb9c46da8bdea643a9a02",
];
const MESSAGE: &[u8] = b"test";
/// Hiding and binding nonce randomness of participants 1 and 3.
const RANDOMNESS_1: [&str; 2] = [
    "06894e04ee4aceec8619d5f6a0a180e2f47194d2ac306cba586b555e7c48d765",
    "40d6f879ff22e22409f7d808fed81f37118e7d3e4af71c0f44c60207553bcbce",
];
const RANDOMNESS_3: [&str; 2] = [
    "fa5d950626782aade9e33fa781376d4888c2d1de7c37518bc248eb818ed0cdde",
    "7459a4d14ded0e365b085271be8dc6600d5b88f3978a2174297ffa32001a5afc",
];
const SIGNATURE: &str = "154fb694ee7fcb37bf2381d94488c2a84b03b3352ad085feca81ad26d45852b7\
                         ecfe971ce4da95c4a95db93ac376b053897fca212ef85f99cf696bffeb178f07";

/// A random number generator that gives what the vectors say was drawn, and panics when asked for more.
struct Scripted(VecDeque<u8>);

impl Scripted {
    fn new(hex: [&str; 2]) -> Self {
        Self(hex.iter().flat_map(|part| hex::decode(part).unwrap()).collect())
    }
}

impl RngCore for Scripted {
    fn next_u32(&mut self) -> u32 {
        unimplemented!("the vectors give bytes")
    }

    fn next_u64(&mut self) -> u64 {
        unimplemented!("the vectors give bytes")
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        bytes.fill_with(|| self.0.pop_front().unwrap());
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for Scripted {}

fn group() -> Group {
    let shares: Vec<Zeroizing<Vec<u8>>> =
        SHARES.iter().map(|share| Zeroizing::new(hex::decode(share).unwrap())).collect();
    let verifying_share = |share: &Zeroizing<Vec<u8>>| {
        let share = frost_ed25519::keys::SigningShare::deserialize(share).unwrap();
        frost_ed25519::keys::VerifyingShare::from(share).serialize().unwrap()
    };
    let dealt = Dealt {
        public_key: hex::decode(GROUP_PUBLIC_KEY).unwrap(),
        verifying_shares: shares.iter().map(verifying_share).collect(),
        shares,
    };
    Group::with_key(SchemeId::FrostEd25519, 2, dealt)
}

#[test]
fn the_vectors_shares_pass_the_check_at_their_positions() {
    let group = group();
    for party in &group.parties {
        assert_eq!(check(&group.material(party)), Ok(()));
    }
}

#[test]
fn a_session_with_the_vectors_randomness_ends_with_the_vectors_signature() {
    let group = group();
    let open = params(MESSAGE, &["a", "c"]);
    let mut sessions = BTreeMap::new();
    let mut envelopes = Vec::new();
    for (party, randomness) in [("a", RANDOMNESS_1), ("c", RANDOMNESS_3)] {
        let mut rng = Scripted::new(randomness);
        let (session, sent) =
            Session::open(open.clone(), &group.material(party), &group.keys(party), &mut rng).unwrap();
        assert!(rng.0.is_empty(), "a session draws two nonces and nothing else");
        sessions.insert(party.to_owned(), session);
        envelopes.extend(sent);
    }
    for signature in run(&mut sessions, envelopes) {
        assert_eq!(hex::encode(signature), SIGNATURE);
    }
}
