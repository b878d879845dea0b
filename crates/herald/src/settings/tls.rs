//! The files of TLS.

use herald_http::server::TlsSettings;

use super::{Key, kinds, sources::Sources};

/// What to serve over TLS; `None` for none.
pub(super) fn read(sources: &mut Sources) -> Option<TlsSettings> {
    let mut file = |key| sources.value(key, kinds::or("none", kinds::file));
    let (certificate, key) = (file(Key::TlsCert), file(Key::TlsKeyFile));
    let client_ca = file(Key::TlsClientCa);
    let is_pair = certificate.is_some() == key.is_some();
    sources.check(&[Key::TlsCert, Key::TlsKeyFile], is_pair, || {
        "tls-cert, tls-key: both or neither".to_owned()
    });
    let is_served = certificate.is_some() || client_ca.is_none();
    sources.check(&[Key::TlsCert, Key::TlsClientCa], is_served, || {
        "tls-client-ca: clients show certificates only over TLS, which needs tls-cert and tls-key"
            .to_owned()
    });
    Some(TlsSettings { client_ca, ..TlsSettings::new(certificate?, key?) })
}
