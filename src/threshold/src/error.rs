use crate::ShareError;

/// Why a session is not opened, or a message is not accepted.
///
/// Errors up to and including [`NotAuthentic`](Self::NotAuthentic) leave a session as it was: anybody can
/// cause them. Those after it come from an authentic message and end it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// There is nothing to sign.
    #[error("the message is empty; expected 1 to 65536 bytes")]
    EmptyMessage,
    /// The message is too long.
    #[error("the message is {actual} bytes long; the limit is {limit}")]
    MessageTooLong {
        /// The limit, bytes.
        limit: usize,
        /// The message's length, bytes.
        actual: usize,
    },
    /// A signer holds no share of the key.
    #[error("signer `{signer}` is not a party of this account")]
    UnknownSigner {
        /// The signer.
        signer: String,
    },
    /// A signer is named twice.
    #[error("signer `{signer}` is named twice")]
    DuplicateSigner {
        /// The signer.
        signer: String,
    },
    /// The own party is not among the signers.
    #[error("this party, `{own}`, is not among the signers")]
    OwnMissing {
        /// The own party.
        own: String,
    },
    /// Fewer signers than the threshold.
    #[error("{actual} signers; this account needs at least {threshold}")]
    NotEnoughSigners {
        /// The account's threshold.
        threshold: u16,
        /// How many signers there are.
        actual: usize,
    },
    /// The bundle has no usable key of a signer.
    #[error("there is no usable party key of `{party}`")]
    NoPartyKey {
        /// The signer.
        party: String,
    },
    /// The own key material cannot be used.
    #[error("the key material of this account is invalid: {0}")]
    KeyMaterial(#[from] ShareError),

    /// The session is over: it has a signature, or has failed.
    #[error("the session is over")]
    Finished,
    /// An envelope of another session.
    #[error("the message belongs to another session")]
    WrongSession,
    /// An envelope for another account.
    #[error("the message is for account `{actual}`; this session signs with `{expected}`")]
    WrongAccount {
        /// The session's account.
        expected: String,
        /// The envelope's.
        actual: String,
    },
    /// An envelope for another party.
    #[error("the message is for `{actual}`; this party is `{expected}`")]
    WrongReceiver {
        /// The own party.
        expected: String,
        /// The envelope's receiver.
        actual: String,
    },
    /// The sender is not one of the other signers.
    #[error("`{sender}` is not another signer of this session")]
    NotInSession {
        /// The sender.
        sender: String,
    },
    /// A round that does not exist or has not begun.
    #[error("the message is of round {actual}; this session expects messages of round {expected}")]
    WrongRound {
        /// The session's round.
        expected: u32,
        /// The envelope's.
        actual: u32,
    },
    /// The ciphertext is too long.
    #[error("the message's ciphertext is {actual} bytes long; the limit is {limit}")]
    TooLarge {
        /// The limit, bytes.
        limit: usize,
        /// The ciphertext's length, bytes.
        actual: usize,
    },
    /// This sender's message of this round has been accepted before.
    #[error("a message of round {round} from `{sender}` was accepted before")]
    Repeated {
        /// The round.
        round: u32,
        /// The sender.
        sender: String,
    },
    /// The envelope was not sealed by its sender to this party, or was altered.
    #[error("the message is not authentic: `{sender}` did not seal it to this party as it is")]
    NotAuthentic {
        /// Who it says it is from.
        sender: String,
    },

    /// The sender's view of the session is another one.
    #[error("`{sender}` {}", disagreement(*.round))]
    Disagreement {
        /// 1: another message, key or set of signers. 2: other messages of round 1.
        round: u32,
        /// The sender.
        sender: String,
    },
    /// An authentic message that does not decode.
    #[error("the message of round {round} from `{sender}` is malformed")]
    BadMessage {
        /// The round.
        round: u32,
        /// The sender.
        sender: String,
    },
    /// The sender's signature share is wrong.
    #[error("the signature share of `{sender}` is invalid")]
    InvalidShare {
        /// The sender.
        sender: String,
    },
    /// The protocol failed without a culprit.
    #[error("the signing protocol failed in round {round}")]
    Protocol {
        /// The round.
        round: u32,
    },
}

/// What sort of error a [`SessionError`] is, named after the gRPC status codes a server answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A field of the request is wrong.
    InvalidArgument,
    /// The message is not authentic, or its sender is not in the session.
    PermissionDenied,
    /// The message is out of order or repeated.
    FailedPrecondition,
    /// A limit is exceeded.
    ResourceExhausted,
    /// Another signer made the session fail.
    Aborted,
    /// The own key material is at fault.
    Internal,
}

impl SessionError {
    /// What sort of error it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::EmptyMessage
            | Self::UnknownSigner { .. }
            | Self::DuplicateSigner { .. }
            | Self::OwnMissing { .. }
            | Self::NotEnoughSigners { .. }
            | Self::WrongSession
            | Self::WrongAccount { .. }
            | Self::WrongReceiver { .. } => ErrorKind::InvalidArgument,
            Self::NotInSession { .. } | Self::NotAuthentic { .. } => ErrorKind::PermissionDenied,
            Self::Finished | Self::WrongRound { .. } | Self::Repeated { .. } => ErrorKind::FailedPrecondition,
            Self::MessageTooLong { .. } | Self::TooLarge { .. } => ErrorKind::ResourceExhausted,
            Self::Disagreement { .. }
            | Self::BadMessage { .. }
            | Self::InvalidShare { .. }
            | Self::Protocol { .. } => ErrorKind::Aborted,
            Self::NoPartyKey { .. } | Self::KeyMaterial(_) => ErrorKind::Internal,
        }
    }
}

fn disagreement(round: u32) -> &'static str {
    match round {
        1 => "signs something else or with other signers; open the session alike at every signer",
        _ => "has other messages of the round before; a signer sent different ones to different signers",
    }
}
