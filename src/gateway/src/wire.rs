//! Envelopes between the session's form and the signing API's.

use threshold::Envelope;

pub(crate) fn to_wire(envelope: Envelope) -> api::sign::Envelope {
    api::sign::Envelope {
        session_id: envelope.session_id.to_vec(),
        account: envelope.account,
        round: envelope.round,
        sender: envelope.sender,
        receiver: envelope.receiver,
        encapsulated_key: envelope.encapsulated_key.to_vec(),
        ciphertext: envelope.ciphertext,
    }
}

/// `None` if a field of fixed length has another length.
pub(crate) fn from_wire(envelope: api::sign::Envelope) -> Option<Envelope> {
    Some(Envelope {
        session_id: envelope.session_id.try_into().ok()?,
        account: envelope.account,
        round: envelope.round,
        sender: envelope.sender,
        receiver: envelope.receiver,
        encapsulated_key: envelope.encapsulated_key.try_into().ok()?,
        ciphertext: envelope.ciphertext,
    })
}
