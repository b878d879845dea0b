//! Why a caller is not let in: which check failed, in one of a bounded set of names.

use std::fmt;

/// A check that a token or a proof must pass, in the order in which they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    /// There is one `Authorization`, and it is `DPoP` and a token.
    Scheme,
    /// The token is a signed object.
    TokenForm,
    /// Its algorithm is allowed.
    TokenAlgorithm,
    /// The issuer has published its key.
    TokenKey,
    /// That key has signed it.
    TokenSignature,
    /// It is this issuer's.
    TokenIssuer,
    /// It is for this service.
    TokenAudience,
    /// It is valid now.
    TokenLifetime,
    /// It is bound to a key.
    TokenBinding,
    /// There is one proof, and it is a signed object.
    ProofForm,
    /// Its `typ`.
    ProofType,
    /// Its algorithm is allowed and fits its key.
    ProofAlgorithm,
    /// Its key is public, and the one that the token is bound to.
    ProofKey,
    /// That key has signed it.
    ProofSignature,
    /// It is for this token.
    ProofToken,
    /// It has a name.
    ProofId,
    /// It is for this method.
    ProofMethod,
    /// It is for this address.
    ProofAddress,
    /// It is of now.
    ProofTime,
    /// It was not used before.
    ProofReplay,
}

/// A call that is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The check that failed.
    pub check: Check,
    /// What was found and what was expected, for those who may know. It has no part of a token or proof but what is no
    /// secret: names, times and addresses.
    pub explanation: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.check.sentence())
    }
}

impl std::error::Error for Refused {}

impl Check {
    /// Every check, in the order in which they are made.
    pub const ALL: [Self; 20] = [
        Self::Scheme,
        Self::TokenForm,
        Self::TokenAlgorithm,
        Self::TokenKey,
        Self::TokenSignature,
        Self::TokenIssuer,
        Self::TokenAudience,
        Self::TokenLifetime,
        Self::TokenBinding,
        Self::ProofForm,
        Self::ProofType,
        Self::ProofAlgorithm,
        Self::ProofKey,
        Self::ProofSignature,
        Self::ProofToken,
        Self::ProofId,
        Self::ProofMethod,
        Self::ProofAddress,
        Self::ProofTime,
        Self::ProofReplay,
    ];

    pub(crate) fn refused(self, explanation: impl fmt::Display) -> Refused {
        Refused { check: self, explanation: explanation.to_string() }
    }

    /// Its name as a label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Scheme => "scheme",
            Self::TokenForm => "token-form",
            Self::TokenAlgorithm => "token-algorithm",
            Self::TokenKey => "token-key",
            Self::TokenSignature => "token-signature",
            Self::TokenIssuer => "token-issuer",
            Self::TokenAudience => "token-audience",
            Self::TokenLifetime => "token-lifetime",
            Self::TokenBinding => "token-binding",
            Self::ProofForm => "proof-form",
            Self::ProofType => "proof-type",
            Self::ProofAlgorithm => "proof-algorithm",
            Self::ProofKey => "proof-key",
            Self::ProofSignature => "proof-signature",
            Self::ProofToken => "proof-token",
            Self::ProofId => "proof-id",
            Self::ProofMethod => "proof-method",
            Self::ProofAddress => "proof-address",
            Self::ProofTime => "proof-time",
            Self::ProofReplay => "proof-replay",
        }
    }

    /// What went wrong, for whoever called.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Scheme => {
                "The call needs one header Authorization with the scheme DPoP and a token."
            }
            Self::TokenForm => "The token is not accepted: it is no signed token.",
            Self::TokenAlgorithm => "The token is not accepted: its algorithm is not allowed.",
            Self::TokenKey => "The token is not accepted: the issuer has no such key.",
            Self::TokenSignature => "The token is not accepted: its signature is wrong.",
            Self::TokenIssuer => "The token is not accepted: it is another issuer's.",
            Self::TokenAudience => "The token is not accepted: it is for another audience.",
            Self::TokenLifetime => {
                "The token is not accepted: it has expired, or is not valid yet."
            }
            Self::TokenBinding => "The token is not accepted: it is bound to no key.",
            Self::ProofForm => "The call needs one header DPoP with a signed proof.",
            Self::ProofType => "The proof is not accepted: its typ is another.",
            Self::ProofAlgorithm => "The proof is not accepted: its algorithm is not allowed.",
            Self::ProofKey => "The proof is not accepted: its key is not the token's.",
            Self::ProofSignature => "The proof is not accepted: its signature is wrong.",
            Self::ProofToken => "The proof is not accepted: it is for another token.",
            Self::ProofId => "The proof is not accepted: it has no name.",
            Self::ProofMethod => "The proof is not accepted: it is for another method.",
            Self::ProofAddress => "The proof is not accepted: its htu is not this address.",
            Self::ProofTime => "The proof is not accepted: its time is not now.",
            Self::ProofReplay => "The proof is not accepted: it was used before.",
        }
    }

    /// The error code of `WWW-Authenticate` (RFC 6750, section 3.1; RFC 9449, section 7.1).
    #[must_use]
    pub const fn error(self) -> &'static str {
        match self {
            Self::Scheme
            | Self::TokenForm
            | Self::TokenAlgorithm
            | Self::TokenKey
            | Self::TokenSignature
            | Self::TokenIssuer
            | Self::TokenAudience
            | Self::TokenLifetime
            | Self::TokenBinding => "invalid_token",
            Self::ProofForm
            | Self::ProofType
            | Self::ProofAlgorithm
            | Self::ProofKey
            | Self::ProofSignature
            | Self::ProofToken
            | Self::ProofId
            | Self::ProofMethod
            | Self::ProofAddress
            | Self::ProofTime
            | Self::ProofReplay => "invalid_dpop_proof",
        }
    }
}
