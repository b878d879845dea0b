//! Certificates made for one test, in files.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};

/// An issuer, a server's certificate and a client's, in a directory.
pub(crate) struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// Makes them in `dir`: `ca.pem`, and `server`, `client` and `other`, a key without a certificate.
    pub(crate) fn new(dir: &Path) -> Self {
        let certificates = Self { dir: dir.to_owned() };
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Herald's tests");
        let key = KeyPair::generate().expect("a key");
        let ca = params.self_signed(&key).expect("a certificate");
        certificates.put("ca.pem", &ca.pem());
        let issuer = Issuer::new(params, key);
        certificates.issue(&issuer, "server", ExtendedKeyUsagePurpose::ServerAuth);
        certificates.issue(&issuer, "client", ExtendedKeyUsagePurpose::ClientAuth);
        let other = KeyPair::generate().expect("a key");
        certificates.put("other-key.pem", &other.serialize_pem());
        certificates
    }

    fn issue(&self, issuer: &Issuer<'_, KeyPair>, name: &str, usage: ExtendedKeyUsagePurpose) {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages.push(usage);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, issuer).expect("a certificate");
        self.put(&format!("{name}.pem"), &certificate.pem());
        self.put(&format!("{name}-key.pem"), &key.serialize_pem());
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.dir.join(name), text).expect("a file");
    }

    /// The path of one of the files.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().expect("UTF-8").to_owned()
    }
}
