//! A Herald that lets in who has a token, the issuer of the tokens, and callers who do it right or wrong.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use herald_auth::{
    Address, Algorithm, Authenticator, IssuerKeys, KeyKind, KeysSettings, Organisations,
    PrivateKey, ProofRules, REPLAYS_MAX, Rules, TokenRules, encode,
};
use herald_http::{
    admission::{Admission, Refusals, TokenAdmission},
    api::ApiSettings,
    limits::ClientLimits,
    metrics::Metrics,
};
use http::Method;
use jiff::Timestamp;
use reqwest::RequestBuilder;
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    herald::{Answer, EVENT_STREAM, Events, Herald, answer, quiet},
    leaks,
    serving::{PATIENCE, read_to_end},
};

pub(crate) const READ: &str = "nhn:msh/api";
pub(crate) const PUBLISH: &str = "nhn:msh/notifications-publish";
pub(crate) const HER_ID_CLAIM: &str = "nhn:msh/client/claims/herid";
pub(crate) const ORGANISATION_CLAIM: &str = "helseid://claims/client/claims/orgnr_parent";
/// The caller's organisation has three, another one has one.
pub(crate) const ORGANISATIONS: &str = r#"{"310000000":[100,200,300],"320000000":[400]}"#;

/// How a test's server differs from the usual one.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) explains: bool,
    pub(crate) public_url: Option<&'static str>,
    pub(crate) stream_max_age: Duration,
    pub(crate) refresh_pause: Duration,
    pub(crate) replays_max: usize,
    pub(crate) client_requests_per_second: u32,
    /// Whether the organisations are known from the start.
    pub(crate) knows_organisations: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            explains: false,
            public_url: None,
            stream_max_age: quiet().stream_max_age,
            refresh_pause: Duration::ZERO,
            replays_max: REPLAYS_MAX,
            client_requests_per_second: quiet().clients.requests_per_second,
            knows_organisations: true,
        }
    }
}

/// A running server that lets in who has a token.
pub(crate) struct Guarded {
    pub(crate) herald: Herald,
    pub(crate) issuer: TestIssuer,
    pub(crate) organisations: Organisations,
    pub(crate) keys: IssuerKeys,
}

impl Drop for Guarded {
    /// No token and no proof shows in anything that was said so far.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let metrics = Metrics::install().render(&self.herald.lifecycle);
            assert_eq!(leaks::found(&metrics), Vec::<String>::new());
        }
    }
}

impl Guarded {
    /// A server that is ready and has the issuer's keys.
    pub(crate) async fn start() -> Self {
        Self::start_with(Setup::default()).await
    }

    pub(crate) async fn start_with(setup: Setup) -> Self {
        let guarded = Self::starting(setup).await;
        guarded.herald.open_log();
        guarded.has_keys().await;
        guarded
    }

    /// A server that has neither its log nor the issuer's keys.
    pub(crate) async fn starting(setup: Setup) -> Self {
        let issuer = TestIssuer::start().await;
        Self::starting_at(issuer, setup)
    }

    pub(crate) fn starting_at(issuer: TestIssuer, setup: Setup) -> Self {
        leaks::keep_logs();
        let settings = KeysSettings {
            refresh_interval: Duration::from_secs(3600),
            refresh_pause: setup.refresh_pause,
        };
        let keys = IssuerKeys::new(&issuer.url, settings).unwrap();
        let rules = Rules {
            token: TokenRules {
                issuer: issuer.url.clone(),
                audience: "nhn:msh".to_owned(),
                algorithms: Algorithm::ALL.to_vec(),
                skew: Duration::from_secs(5),
            },
            proof: ProofRules::default(),
            replays_max: setup.replays_max,
        };
        let organisations = Organisations::new();
        if setup.knows_organisations {
            organisations.replace(ORGANISATIONS.as_bytes()).unwrap();
        }
        // Counters are made where there is a recorder.
        let _ = Metrics::install();
        let admission = Arc::new(Admission::Tokens(Box::new(TokenAdmission {
            publishers: None,
            authenticator: Authenticator::new(keys.clone(), rules),
            organisations: organisations.clone(),
            scope: READ.to_owned(),
            publish_scope: PUBLISH.to_owned(),
            public_url: setup.public_url.map(|url| Address::parse(url).unwrap()),
            explains: setup.explains,
            refusals: Refusals::default(),
        })));
        let stream_max_age = setup.stream_max_age;
        let clients = ClientLimits {
            requests_per_second: setup.client_requests_per_second,
            ..quiet().clients
        };
        let settings = ApiSettings { admission, stream_max_age, clients, ..quiet() };
        let herald = Herald::starting(settings);
        Self { herald, issuer, organisations, keys }
    }

    /// Ready when the server has the issuer's keys.
    pub(crate) async fn has_keys(&self) {
        let keys = self.keys.clone();
        tokio::spawn(async move { keys.keep_fresh().await });
        timeout(PATIENCE, self.keys.known()).await.expect("the issuer has keys");
    }

    /// The same server asked over cleartext HTTP/2.
    pub(crate) fn over_http2(mut self) -> Self {
        self.herald.client = Herald::http2_client();
        self
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.herald.address)
    }

    /// Whoever reads all that its organisation has.
    pub(crate) fn reader(&self) -> Caller {
        self.caller(json!({}))
    }

    pub(crate) fn publisher(&self) -> Caller {
        self.caller(json!({ "scope": [PUBLISH], HER_ID_CLAIM: null, ORGANISATION_CLAIM: null }))
    }

    /// A reader whose token says other things, or leaves out what is null.
    pub(crate) fn caller(&self, changes: Value) -> Caller {
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        let claims = changed(self.claims(&key), changes);
        let token = self.issuer.sign(&json!({}), &claims);
        Caller { key: Arc::new(key), token }
    }

    /// What a reader's token says that is bound to `key`.
    pub(crate) fn claims(&self, key: &PrivateKey) -> Value {
        let now = Timestamp::now().as_second();
        json!({
            "iss": self.issuer.url, "aud": "nhn:msh", "scope": [READ],
            "client_id": "0b1ad1d6-8a4f-4b32-9d33-3c5f2c4f7b11", "jti": next_id(),
            "iat": now, "nbf": now, "exp": now + 600,
            "cnf": { "jkt": key.public().thumbprint() },
            HER_ID_CLAIM: "0", ORGANISATION_CLAIM: "310000000",
        })
    }

    /// A call with the headers of the page, a token and a proof of it.
    pub(crate) fn call(&self, caller: &Caller, method: Method, path: &str) -> RequestBuilder {
        let proof = caller.proof(method.as_str(), &self.url(path));
        self.presenting(caller, &proof, method, path)
    }

    /// The same with this proof.
    pub(crate) fn presenting(
        &self,
        caller: &Caller,
        proof: &str,
        method: Method,
        path: &str,
    ) -> RequestBuilder {
        let request = self.herald.request(method, path);
        request.header("authorization", caller.authorization()).header("dpop", proof)
    }

    pub(crate) async fn get(&self, caller: &Caller, path: &str) -> Answer {
        answer(self.call(caller, Method::GET, path)).await
    }

    pub(crate) async fn poll(&self, caller: &Caller, query: &str) -> Answer {
        self.get(caller, &format!("/notifications?{query}")).await
    }

    /// The answer to a poll with this proof.
    pub(crate) async fn poll_with(&self, caller: &Caller, proof: &str) -> Answer {
        let path = "/notifications?HerIds=100&Offset=0";
        answer(self.presenting(caller, proof, Method::GET, path)).await
    }

    /// Asks for a stream.
    pub(crate) fn stream_call(&self, caller: &Caller, query: &str) -> RequestBuilder {
        let path = format!("/notifications/stream?{query}");
        self.call(caller, Method::GET, &path).header("accept", EVENT_STREAM)
    }

    pub(crate) async fn stream(&self, caller: &Caller, query: &str) -> Events {
        Events::open(self.stream_call(caller, query)).await.connected().await
    }

    pub(crate) async fn post(&self, caller: &Caller, content_type: &str, body: String) -> Answer {
        let call = self.call(caller, Method::POST, "/notifications");
        answer(call.header("content-type", content_type).body(body)).await
    }

    pub(crate) async fn append(&self, drafts: &[Value]) {
        let body = json!({ "notifications": drafts }).to_string();
        let appended = self.post(&self.publisher(), "application/json", body).await;
        assert_eq!(appended.status, 201, "{}", appended.text());
    }

    /// A raw request over HTTP/1.1, to the end of its connection.
    pub(crate) async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.herald.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        read_to_end(&mut stream).await
    }
}

/// Whoever calls: a key, and a token that is bound to it.
pub(crate) struct Caller {
    pub(crate) key: Arc<PrivateKey>,
    pub(crate) token: String,
}

impl Caller {
    pub(crate) fn authorization(&self) -> String {
        format!("DPoP {}", self.token)
    }

    /// A proof for one call; what is behind a question mark is left out.
    pub(crate) fn proof(&self, method: &str, url: &str) -> String {
        let url = url.split(['?', '#']).next().unwrap();
        self.proof_with(method, url, json!({}), json!({}))
    }

    /// A proof whose header and claims say other things, or leave out what is null.
    pub(crate) fn proof_with(
        &self,
        method: &str,
        url: &str,
        header: Value,
        claims: Value,
    ) -> String {
        let jwk: Value = serde_json::from_str(&self.key.public().to_jwk()).unwrap();
        let usual = json!({ "typ": "dpop+jwt", "alg": self.key.algorithm().name(), "jwk": jwk });
        let header = changed(usual, header);
        let usual = json!({
            "jti": next_id(), "htm": method, "htu": url, "iat": Timestamp::now().as_second(),
            "ath": token_hash(&self.token),
        });
        signed(&self.key, &header, &changed(usual, claims))
    }
}

/// What a proof says of the token that goes with it.
pub(crate) fn token_hash(token: &str) -> String {
    encode(ring::digest::digest(&ring::digest::SHA256, token.as_bytes()).as_ref())
}

/// A name that nothing else has.
pub(crate) fn next_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("id-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// An object with these members changed, or left out where they are null.
pub(crate) fn changed(usual: Value, changes: Value) -> Value {
    let (Value::Object(mut usual), Value::Object(changes)) = (usual, changes) else {
        panic!("objects")
    };
    usual.extend(changes);
    usual.retain(|_, value| !value.is_null());
    Value::Object(usual)
}

/// Signs whatever is said, with what the key is for.
pub(crate) fn signed(key: &PrivateKey, header: &Value, claims: &Value) -> String {
    let text = unsigned(header, claims);
    let signature = key.sign(key.algorithm(), text.as_bytes()).unwrap();
    secret(format!("{text}.{}", encode(&signature)))
}

/// What would be signed.
pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| encode(value.to_string().as_bytes());
    format!("{}.{}", part(header), part(claims))
}

/// Notes that `text` is a token or a proof.
pub(crate) fn secret(text: String) -> String {
    leaks::is_secret(&text);
    text
}

/// An issuer over real HTTP whose keys and moods are the test's.
pub(crate) struct TestIssuer {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

struct State {
    signing: PrivateKey,
    published: Vec<Value>,
    /// How often the keys were fetched.
    fetches: usize,
    is_away: bool,
}

impl TestIssuer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (signing, public) = new_key();
        let state = State { signing, published: vec![public], fetches: 0, is_away: false };
        let state = Arc::new(Mutex::new(state));
        tokio::spawn(serve(listener, url.clone(), Arc::clone(&state)));
        Self { url, state }
    }

    /// No issuer of ours: only its address.
    pub(crate) fn named(url: &str) -> Self {
        let (signing, _) = new_key();
        let state = State { signing, published: Vec::new(), fetches: 0, is_away: true };
        Self { url: url.to_owned(), state: Arc::new(Mutex::new(state)) }
    }

    /// Signs a token whose header says these things too.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let state = self.state.lock().unwrap();
        let key = &state.signing;
        let usual = json!({ "typ": "JWT", "alg": key.algorithm().name(), "kid": key.kid() });
        signed(key, &changed(usual, header.clone()), claims)
    }

    /// Another key signs from now on, beside the old ones.
    pub(crate) fn rotate(&self) {
        let (signing, public) = new_key();
        let mut state = self.state.lock().unwrap();
        state.signing = signing;
        state.published.push(public);
    }

    /// A key signs that nobody is told of.
    pub(crate) fn hide_key(&self) {
        self.state.lock().unwrap().signing = new_key().0;
    }

    pub(crate) fn publish(&self, keys: Vec<Value>) {
        self.state.lock().unwrap().published = keys;
    }

    /// The public keys as they are published.
    pub(crate) fn published(&self) -> Vec<Value> {
        self.state.lock().unwrap().published.clone()
    }

    pub(crate) fn set_away(&self, is_away: bool) {
        self.state.lock().unwrap().is_away = is_away;
    }

    pub(crate) fn fetches(&self) -> usize {
        self.state.lock().unwrap().fetches
    }
}

fn new_key() -> (PrivateKey, Value) {
    let key = PrivateKey::generate(KeyKind::P256).unwrap().named(next_id());
    let mut jwk: Map<String, Value> = serde_json::from_str(&key.public().to_jwk()).unwrap();
    jwk.insert("kid".to_owned(), key.kid().into());
    (key, jwk.into())
}

/// One request for each connection; who is away closes without a word.
async fn serve(listener: TcpListener, url: String, state: Arc<Mutex<State>>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (url, state) = (url.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { return };
                head.push(byte);
            }
            let body = {
                let mut state = state.lock().unwrap();
                if state.is_away {
                    return;
                }
                if head.starts_with(b"GET /keys ") {
                    state.fetches += 1;
                    json!({ "keys": state.published })
                } else {
                    json!({ "issuer": url, "jwks_uri": format!("{url}/keys") })
                }
            };
            let body = body.to_string();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            // Whoever asked may have gone.
            let _ = stream.write_all(answer.as_bytes()).await;
        });
    }
}
