//! What goes on each call: the token, and a proof made for this request and no other.

use std::{sync::Arc, time::SystemTime};

use herald_auth::{ProofOf, Prover};
use jiff::Timestamp;
use reqwest::{
    Request, RequestBuilder, Response, StatusCode,
    header::{AUTHORIZATION, HeaderName, HeaderValue},
};

use super::{
    HelseId, Issuer, NONCE_RETRIES_MAX, SignInFailure,
    nonce::Nonce,
    tokens::{Token, Tokens},
};
use crate::{Error, SettingsError, challenge::Challenge, client::transport};

/// The header that has the proof.
pub(super) const PROOF: HeaderName = HeaderName::from_static("dpop");

/// A client that signs in, shared by its clones. It has no `Debug`.
pub(crate) struct Session {
    tokens: Tokens,
    prover: Arc<Prover>,
    /// The server's; the issuer's is the issuer's.
    nonce: Nonce,
    issuer: Arc<str>,
}

impl Session {
    /// Nothing is asked of the issuer before the first call. `http` is the way to it.
    pub(crate) fn new(helseid: &HelseId, http: reqwest::Client) -> Result<Self, SettingsError> {
        let unsigned =
            |error: herald_auth::Unsignable| SettingsError::Key { why: error.to_string() };
        let prover = Arc::new(Prover::new().map_err(unsigned)?);
        let issuer = Issuer::new(helseid, Arc::clone(&prover), http)?;
        let name = Arc::clone(issuer.name());
        Ok(Self { tokens: Tokens::new(issuer), prover, nonce: Nonce::default(), issuer: name })
    }

    /// Waits until there is a token.
    pub(crate) async fn sign_in(&self) -> Result<(), Error> {
        self.token().await?;
        Ok(())
    }

    async fn token(&self) -> Result<Arc<Token>, Error> {
        let token = self.tokens.token().await;
        token.inspect_err(|_| self.tokens.interrupted()).map_err(Error::from)
    }

    /// Sends a request with token and proof, and again if the server asks for a nonce.
    ///
    /// An answer that refuses the token is handed on like any other, and its [`Challenge`] with it.
    pub(crate) async fn send(
        &self,
        http: &reqwest::Client,
        request: RequestBuilder,
    ) -> Result<Response, Error> {
        let request = request.build().map_err(transport)?;
        let mut nonce = self.nonce.newest();
        let mut retries = 0;
        loop {
            let token = self.token().await?;
            let signed = self.sign(&request, &token, nonce.as_deref())?;
            let answer = http.execute(signed).await;
            let mut answer =
                answer.inspect_err(|_| self.tokens.interrupted()).map_err(transport)?;
            let asked_for = self.nonce.keep(answer.headers());
            if answer.status() != StatusCode::UNAUTHORIZED {
                if answer.status().is_success() {
                    self.tokens.let_in();
                } else {
                    self.tokens.interrupted();
                }
                return Ok(answer);
            }
            let mut challenge = Challenge::read(answer.headers(), SystemTime::now());
            if challenge.asks_for_nonce() && asked_for.is_some() && retries < NONCE_RETRIES_MAX {
                retries += 1;
                nonce = asked_for;
                continue;
            }
            if challenge.refuses_token() {
                let refused = self.tokens.refuse(&token);
                challenge.may_pass = refused.may_pass;
                challenge.is_token_replaced = refused.is_replaced;
            } else {
                self.tokens.interrupted();
            }
            answer.extensions_mut().insert(challenge);
            return Ok(answer);
        }
    }

    fn sign(
        &self,
        request: &Request,
        token: &Token,
        nonce: Option<&str>,
    ) -> Result<Request, Error> {
        let of = ProofOf {
            method: request.method().as_str(),
            url: request.url().as_str(),
            token: Some(&token.text),
            nonce,
        };
        let proof = self.prover.proof(of, Timestamp::now());
        let proof = proof.map_err(|error| {
            let failure = SignInFailure::Unsigned { why: error.to_string() };
            super::SignInError::new(Arc::clone(&self.issuer), None, failure)
        })?;
        let mut signed = request.try_clone().expect("a body is bytes or nothing");
        let authorization = format!("DPoP {}", token.text);
        signed.headers_mut().insert(AUTHORIZATION, secret(&authorization));
        signed.headers_mut().insert(PROOF, secret(&proof));
        Ok(signed)
    }
}

/// A header that no library shows.
pub(super) fn secret(text: &str) -> HeaderValue {
    let value = HeaderValue::from_str(text);
    let mut value = value.expect("visible characters: tokens are checked, proofs are base64");
    value.set_sensitive(true);
    value
}
