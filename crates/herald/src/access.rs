//! Who is let in, from the settings: what is read at the start, and what is kept fresh from then on.

use std::sync::Arc;

use anyhow::Context as _;
use herald_auth::{
    Authenticator, DocumentFile, IssuerKeys, KeysSettings, Lists, Organisations, ProofRules,
    Publishers, Registry, Rules, Source, Subject, TokenRules, WATCH_INTERVAL,
};
use herald_http::{
    admission::{Admission, Refusals, TokenAdmission},
    lifecycle::Lifecycle,
};
use herald_types::Grant;

use crate::settings::{Auth, Document, HelseIdSettings};

/// Who is let in.
pub(crate) struct Access {
    admission: Arc<Admission>,
    fresh: Option<Fresh>,
}

/// What changes while the server runs.
struct Fresh {
    keys: IssuerKeys,
    organisations: (Organisations, Box<dyn Source>),
    publishers: Option<(Publishers, Box<dyn Source>)>,
}

impl Access {
    /// Reads what grants depend on. From now on balancers are told to wait until all of it is known, which
    /// [`Access::keep_fresh`] sees to.
    ///
    /// # Errors
    /// A file of organisations that cannot be used. A registry or an issuer that does not answer is waited for.
    pub(crate) async fn open(auth: &Auth, lifecycle: &Lifecycle) -> anyhow::Result<Self> {
        match auth {
            Auth::None => {
                let admission = Arc::new(Admission::Everybody(Grant::everything()));
                Ok(Self { admission, fresh: None })
            }
            Auth::HelseId(settings) => {
                // Before the log can be open: not even for a moment is a server ready that knows nobody.
                lifecycle.lacks_keys(true);
                lifecycle.lacks_documents(true);
                Self::open_helseid(settings).await
            }
        }
    }

    async fn open_helseid(settings: &HelseIdSettings) -> anyhow::Result<Self> {
        let keys = IssuerKeys::new(
            &settings.issuer,
            KeysSettings {
                refresh_interval: settings.keys_interval,
                refresh_pause: settings.keys_pause,
            },
        )
        .context("issuer")?;
        let organisations: (Organisations, _) = open(&settings.organisations).await?;
        let publishers: Option<(Publishers, _)> = match &settings.publishers {
            Some(document) => Some(open(document).await?),
            None => None,
        };
        let rules = Rules {
            token: TokenRules {
                issuer: settings.issuer.clone(),
                audience: settings.audience.clone(),
                algorithms: settings.token_algorithms.clone(),
                skew: settings.clock_skew,
            },
            proof: ProofRules {
                algorithms: settings.proof_algorithms.clone(),
                age_max: settings.proof_age_max,
                skew: settings.clock_skew,
            },
            replays_max: settings.replays_max,
        };
        let admission = TokenAdmission {
            authenticator: Authenticator::new(keys.clone(), rules),
            organisations: organisations.0.clone(),
            publishers: publishers.as_ref().map(|(publishers, _)| publishers.clone()),
            scope: settings.scope.clone(),
            publish_scope: settings.publish_scope.clone(),
            public_url: settings.public_url.clone(),
            explains: settings.explains,
            refusals: Refusals::default(),
        };
        Ok(Self {
            admission: Arc::new(Admission::Tokens(Box::new(admission))),
            fresh: Some(Fresh { keys, organisations, publishers }),
        })
    }

    pub(crate) fn admission(&self) -> Arc<Admission> {
        Arc::clone(&self.admission)
    }

    /// Keeps keys, organisations and publishers fresh, for ever.
    pub(crate) async fn keep_fresh(self, lifecycle: &Lifecycle) {
        let Some(Fresh { keys, organisations: (organisations, mut source), publishers }) =
            self.fresh
        else {
            return std::future::pending().await;
        };
        let first = async {
            keys.known().await;
            lifecycle.lacks_keys(false);
        };
        let (known_organisations, known_publishers) =
            (organisations.clone(), publishers.as_ref().map(|(publishers, _)| publishers.clone()));
        let first_documents = async {
            known_organisations.known().await;
            if let Some(publishers) = known_publishers {
                publishers.known().await;
            }
            lifecycle.lacks_documents(false);
        };
        let publishers = async {
            if let Some((publishers, mut source)) = publishers {
                publishers.keep_fresh(&mut *source, WATCH_INTERVAL).await;
            }
        };
        let organisations = organisations.keep_fresh(&mut *source, WATCH_INTERVAL);
        tokio::join!(first, first_documents, keys.keep_fresh(), organisations, publishers);
    }
}

/// Lists and where they come from. What is in a file is there, or it is a mistake; a registry may be away for a while.
async fn open<S: Subject>(document: &Document) -> anyhow::Result<(Lists<S>, Box<dyn Source>)> {
    let lists = Lists::new();
    let source: Box<dyn Source> = match document {
        Document::File(path) => {
            let mut file = DocumentFile::new(path);
            lists.read(&mut file).await?;
            Box::new(file)
        }
        Document::Url(url) => Box::new(Registry::new(url).context(S::NAME)?),
    };
    Ok((lists, source))
}
