//! A client of the issuer whose every step can be done wrongly.

use herald_auth::{
    Algorithm, KeyKind, KeySet, PrivateKey, ProofOf, Prover, SignedHeader, Unverified, assertion,
    sign,
};
use herald_issuer::{Client, Issuer, IssuerSettings, KEYS_PATH, TOKEN_PATH};
use jiff::Timestamp;
use reqwest::{Response, StatusCode, header::HeaderMap};
use serde_json::{Map, Value, json};

pub(crate) const READ: &str = "nhn:msh/api";
pub(crate) const PUBLISH: &str = "nhn:msh/notifications-publish";
pub(crate) const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An issuer with one client, and that client.
pub(crate) struct Laptop {
    pub(crate) issuer: Issuer,
    pub(crate) caller: Caller,
}

pub(crate) fn new_key() -> PrivateKey {
    PrivateKey::generate(KeyKind::P256).unwrap()
}

pub(crate) fn registered(caller: &Caller) -> Client {
    let claims = [
        ("nhn:msh/client/claims/herid", "100-200"),
        ("helseid://claims/client/claims/orgnr_parent", "310000000"),
    ];
    let client = Client::new(&caller.id, caller.key.public().clone());
    let client = client.with_scope(READ).with_scope(PUBLISH);
    claims.into_iter().fold(client, |client, (name, value)| client.with_claim(name, value))
}

impl Laptop {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut IssuerSettings)) -> Self {
        let mut caller = Caller::new("laptop");
        let mut settings = IssuerSettings::new(vec![registered(&caller)]);
        change(&mut settings);
        let issuer = Issuer::start(settings).await.unwrap();
        caller.url = issuer.url().to_owned();
        Self { issuer, caller }
    }
}

/// What came back.
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answered {
    async fn of(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"));
        Self { status, headers, body }
    }

    pub(crate) fn nonce(&self) -> Option<&str> {
        self.headers.get("dpop-nonce").map(|nonce| nonce.to_str().unwrap())
    }

    pub(crate) fn token(&self) -> &str {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body["access_token"].as_str().unwrap()
    }

    #[track_caller]
    pub(crate) fn assert_refused(&self, error: &str, description: &str) {
        assert_eq!(self.status, 400, "{}", self.body);
        assert_eq!(self.body["error"], error, "{}", self.body);
        let said = self.body["error_description"].as_str().unwrap();
        assert!(said.contains(description), "{said} has no {description:?}");
    }
}

/// One who asks for tokens.
pub(crate) struct Caller {
    pub(crate) url: String,
    pub(crate) id: String,
    pub(crate) key: PrivateKey,
    pub(crate) prover: Prover,
    pub(crate) http: reqwest::Client,
}

impl Caller {
    pub(crate) fn new(id: &str) -> Self {
        // Beside crates that need TLS, the HTTP client is built with it. Once for all tests; later calls change nothing.
        rustls::crypto::ring::default_provider().install_default().ok();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let (key, prover) = (new_key().named("a-key"), Prover::new().unwrap());
        Self { url: String::new(), id: id.to_owned(), key, prover, http }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("{}{TOKEN_PATH}", self.url)
    }

    pub(crate) fn assertion(&self) -> String {
        assertion(&self.key, &self.id, &self.url, Timestamp::now()).unwrap()
    }

    /// An assertion with these claims changed, or left out when null.
    pub(crate) fn assertion_with(&self, changes: &Value) -> String {
        let now = Timestamp::now().as_second();
        let usual = json!({
            "iss": self.id, "sub": self.id, "aud": self.url,
            "jti": format!("{:?}", std::time::Instant::now()),
            "iat": now, "nbf": now, "exp": now + 60,
        });
        let mut claims: Map<String, Value> = usual.as_object().unwrap().clone();
        claims.extend(changes.as_object().unwrap().clone());
        claims.retain(|_, value| !value.is_null());
        let header = SignedHeader { typ: "JWT", kid: None, jwk: None };
        sign(&self.key, Algorithm::Es256, &header, &claims).unwrap()
    }

    pub(crate) fn proof(&self, nonce: Option<&str>) -> String {
        let of = ProofOf { method: "POST", url: &self.endpoint(), token: None, nonce };
        self.prover.proof(of, Timestamp::now()).unwrap()
    }

    pub(crate) fn form(&self, assertion: &str, more: &str) -> String {
        format!(
            "grant_type=client_credentials&client_assertion_type={ASSERTION_TYPE}&client_assertion={assertion}{more}"
        )
    }

    pub(crate) async fn post(&self, form: String, proofs: &[String]) -> Answered {
        let request = self.http.post(self.endpoint()).body(form);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let request = proofs.iter().fold(request, |request, proof| request.header("dpop", proof));
        Answered::of(request.send().await.unwrap()).await
    }

    /// A nonce, as a client gets its first.
    pub(crate) async fn nonce(&self) -> String {
        let answered = self.post(self.form(&self.assertion(), ""), &[self.proof(None)]).await;
        answered.assert_refused("use_dpop_nonce", "DPoP-Nonce");
        answered.nonce().unwrap().to_owned()
    }

    /// The whole dance with one more thing in the form.
    pub(crate) async fn ask_with(&self, assertion: &str, more: &str) -> Answered {
        let proof = self.proof(Some(&self.nonce().await));
        self.post(self.form(assertion, more), &[proof]).await
    }

    pub(crate) async fn ask(&self) -> Answered {
        self.ask_with(&self.assertion(), "").await
    }

    pub(crate) async fn get(&self, path: &str) -> Answered {
        let url = format!("{}{path}", self.url);
        Answered::of(self.http.get(url).send().await.unwrap()).await
    }

    pub(crate) async fn control(&self, path: &str) -> Answered {
        let url = format!("{}{path}", self.url);
        Answered::of(self.http.post(url).send().await.unwrap()).await
    }

    pub(crate) async fn keys(&self) -> KeySet {
        let set = self.get(KEYS_PATH).await.body;
        KeySet::parse(set.to_string().as_bytes()).unwrap()
    }

    /// What `token` says, if the published keys have signed it.
    pub(crate) async fn claims(&self, token: &str) -> Result<Value, Unverified> {
        self.keys().await.verify(token, &Algorithm::ALL)
    }
}
