//! Every setting, one row each: the flags, the variables, the file's keys and what is printed at start come from here.

/// What a row says; the key and the heading stand around it.
#[derive(Clone, Copy, Debug)]
struct Row {
    name: &'static str,
    /// `None` for a flag, which is there or not.
    value_name: Option<&'static str>,
    default: &'static str,
    help: &'static str,
}

/// A setting with a value; the default `none` stands for nothing, and is read by [`super::kinds::or`].
const fn text(
    name: &'static str,
    value_name: &'static str,
    default: &'static str,
    help: &'static str,
) -> Row {
    Row { name, value_name: Some(value_name), default, help }
}

/// A setting that is off unless somebody turns it on: no value on the command line, `true` or `false` elsewhere.
const fn flag(name: &'static str, help: &'static str) -> Row {
    Row { name, value_name: None, default: "false", help }
}

/// Every algorithm there is here.
const ALGORITHMS: &str = "ES256,ES384,ES512,PS256,PS384,PS512,RS256,RS384,RS512";

macro_rules! settings {
    ($($heading:literal { $($key:ident: $row:expr;)+ })+) => {
        /// One setting.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Key {
            $($($key,)+)+
        }

        impl Key {
            /// Every setting, as printed at start.
            pub(crate) const ALL: &[Self] = &[$($(Self::$key,)+)+];

            const fn row(self) -> Row {
                match self {
                    $($(Self::$key => $row,)+)+
                }
            }

            /// What the help shows it under.
            pub(super) const fn heading(self) -> &'static str {
                match self {
                    $($(Self::$key)|+ => $heading,)+
                }
            }
        }
    };
}

settings! {
    "Listening" {
        Listen: text("listen", "ADDRESS", "127.0.0.1:8080",
            "The API's address and port; port 0 takes a free one");
        OpsListen: text("ops-listen", "ADDRESS", "127.0.0.1:9464",
            "The address and port of health and metrics");
    }
    "Storage" {
        DataDir: text("data-dir", "DIR", "./herald-data",
            "Everything that the server keeps");
        Retention: text("retention", "DURATION", "30d",
            "How long a notification is kept, or `forever`");
        Log: text("log", "LOG", "local",
            "Where the order of notifications is kept: `local`, `nats://HOST:PORT,…` or `postgres://USER@HOST:PORT,…/DATABASE`");
        LogCredentials: text("log-credentials", "FILE", "none",
            "Credentials for NATS, a `.creds` file");
        LogCa: text("log-ca", "FILE", "none",
            "Whose certificates the log's engine may show, PEM; without it, those that the system trusts");
    }
    "Streams" {
        Heartbeat: text("heartbeat", "DURATION", "15s",
            "How often a silent stream gets a comment line");
        StallTimeout: text("stall-timeout", "DURATION", "60s",
            "A stream whose reader takes nothing for so long is cut off");
        StreamMaxAge: text("stream-max-age", "DURATION", "1h",
            "How old a stream may get; each ends between 0.8 and 1.0 of it");
    }
    "Access" {
        Auth: text("auth", "AUTH", "none",
            "Who may read what: `none` lets everybody read everything, `helseid` looks at tokens");
        Issuer: text("issuer", "URL", "none",
            "Whose tokens are taken; its keys are found by /.well-known/openid-configuration");
        Audience: text("audience", "TEXT", "nhn:msh",
            "What a token must be for");
        Scope: text("scope", "SCOPE", "nhn:msh/api",
            "The scope that reading needs");
        PublishScope: text("publish-scope", "SCOPE", "nhn:msh/notifications-publish",
            "The scope that appending needs");
        Organisations: text("organisations", "FILE or URL", "none",
            "Which HER-ids an organisation has: {\"<organisation number>\": [HER-id, …]}");
        Publishers: text("publishers", "FILE or URL", "none",
            "For whom each client may append: {\"<client id>\": [HER-id, …] or \"all\"}; without it, for all");
        PublicUrl: text("public-url", "URL", "none",
            "The address that clients use, which their proofs name; without it, what they ask for");
        TokenAlgorithms: text("token-algorithms", "LIST", ALGORITHMS,
            "The algorithms that may sign a token");
        ProofAlgorithms: text("proof-algorithms", "LIST", ALGORITHMS,
            "The algorithms that may sign a proof");
        ClockSkew: text("clock-skew", "DURATION", "5s",
            "How far the clocks of issuer and clients may be from ours");
        ProofAgeMax: text("proof-age-max", "DURATION", "1s",
            "How old a proof may be, beside the skew");
        ReplaysMax: text("replays-max", "COUNT", "500000",
            "How many used proofs are remembered; with no room for another, a call is answered with 503");
        KeysInterval: text("keys-interval", "DURATION", "10m",
            "How often the issuer's keys are fetched");
        KeysPause: text("keys-pause", "DURATION", "60s",
            "How soon again they are fetched for a key that is not known");
        AuthExplain: flag("auth-explain",
            "Say in the answer what a refused token or proof has and what was expected");
        InsecureNoAuth: flag("insecure-no-auth",
            "With `--auth none`: listen on more than loopback all the same");
    }
    "TLS" {
        TlsCert: text("tls-cert", "FILE", "none",
            "The certificate, PEM, with those that lead to its issuer: the API is served over TLS only");
        TlsKeyFile: text("tls-key", "FILE", "none",
            "Its key, PEM");
        TlsClientCa: text("tls-client-ca", "FILE", "none",
            "The issuers of clients' certificates, PEM: who appends must show one");
    }
    "Limits" {
        HeadBytesMax: text("head-bytes-max", "SIZE", "64KiB",
            "How large a request's head may be; 1500 HER-ids take 27 kB of it");
        HeadTimeout: text("head-timeout", "DURATION", "20s",
            "How long a request's head may take, and the first one from when the connection was made");
        IdleTimeout: text("idle-timeout", "DURATION", "75s",
            "A connection without a request for so long is closed");
        ConnectionsMax: text("connections-max", "COUNT", "auto",
            "How many connections the API may have; `auto`: as many as the system has files for, less a reserve");
        ConnectionsPerAddressMax: text("connections-per-address-max", "COUNT", "none",
            "How many of them one address may have; not behind a balancer");
        Http2StreamsMax: text("http2-streams-max", "COUNT", "200",
            "How many requests may run at once on one HTTP/2 connection");
        Http2ResetsMax: text("http2-resets-max", "COUNT", "20",
            "How many requests an HTTP/2 peer may take back before they are looked at");
        UploadTimeout: text("upload-timeout", "DURATION", "5m",
            "How long a request's body is waited for in all");
        UploadsBytesMax: text("uploads-bytes-max", "SIZE", "256MiB",
            "How much memory the bodies of all requests may have together");
        ClientRequestsMax: text("client-requests-max", "COUNT", "1000",
            "How many requests a second one client may make, by its token; twice as many at once");
        ClientStreamsMax: text("client-streams-max", "COUNT", "1000",
            "How many streams one client may have open, by its token");
        Drain: text("drain", "DURATION", "10s",
            "How long a stop may take");
    }
    "Logging" {
        LogLevel: text("log-level", "FILTER", "info",
            "What is logged: `error`, `warn`, `info`, `debug`, `trace`, or `info,herald_http=debug`");
        LogFormat: text("log-format", "FORMAT", "auto",
            "How it is logged: `text`, `json`, or `auto`: text on a terminal");
    }
}

impl Key {
    /// Its name as a flag, without the dashes, and in the file.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        self.row().name
    }

    /// How the help names its value; `None` for a flag.
    pub(super) const fn value_name(self) -> Option<&'static str> {
        self.row().value_name
    }

    /// Whether it is there or not, and has no value on the command line.
    pub(super) const fn is_flag(self) -> bool {
        self.row().value_name.is_none()
    }

    /// Its value when nobody says anything.
    #[must_use]
    pub(crate) const fn default_text(self) -> &'static str {
        self.row().default
    }

    /// Its name in the environment.
    #[must_use]
    pub(crate) fn environment_name(self) -> String {
        format!("HERALD_{}", self.name().to_ascii_uppercase().replace('-', "_"))
    }

    /// What the help says about it, with its variable and its default.
    pub(super) fn help(self) -> String {
        let Row { help, default, .. } = self.row();
        let env = self.environment_name();
        if self.is_flag() {
            format!("{help} [env: {env}]")
        } else {
            format!("{help} [env: {env}] [default: {default}]")
        }
    }
}
