//! Certificates made for one run, in files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};

/// What a server shows, and what it is trusted by: PEM files.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The issuer's certificate.
    pub ca: PathBuf,
    /// The server's.
    pub certificate: PathBuf,
    /// The key of the server's.
    pub key: PathBuf,
}

/// An issuer, and a server's certificate for `localhost` and `127.0.0.1`.
#[derive(Debug)]
pub struct Certificates;

impl Certificates {
    /// Makes them in `dir`: `ca.pem`, `server.pem`, `server-key.pem`.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn make(dir: &Path) -> anyhow::Result<Tls> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Herald's rig");
        let key = KeyPair::generate()?;
        let ca = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);

        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names)?;
        // Nodes of a cluster are clients of each other.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?.pem();

        let tls = Tls {
            ca: dir.join("ca.pem"),
            certificate: dir.join("server.pem"),
            key: dir.join("server-key.pem"),
        };
        fs::write(&tls.ca, ca)?;
        fs::write(&tls.certificate, certificate)?;
        fs::write(&tls.key, key.serialize_pem())?;
        Ok(tls)
    }
}
