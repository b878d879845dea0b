//! An operator, its accounts and a user, each signed by the one above: what `nsc` would make.
//!
//! Source: the NATS documentation, "In depth JWT guide"; keys are Ed25519, written with a kind and a checksum in base32.

use std::{fs, path::Path};

use anyhow::{Context as _, anyhow};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::{SecureRandom as _, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair as _},
};
use serde_json::{Value, json};

/// What a server is told of them.
pub(super) struct Signed {
    /// The lines of its file.
    pub(super) server: String,
}

/// Nothing of keys is shown.
impl std::fmt::Debug for Signed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Signed").finish_non_exhaustive()
    }
}

impl Signed {
    /// Makes all of them, and writes the user's file.
    pub(super) fn make(file: &Path) -> anyhow::Result<Self> {
        let (operator, system, account, user) =
            (Key::new(OPERATOR)?, Key::new(ACCOUNT)?, Key::new(ACCOUNT)?, Key::new(USER)?);
        let operator_says = operator.sign(
            &operator,
            "rig",
            &json!({ "type": "operator", "version": 2, "system_account": system.name() }),
        );
        let unlimited = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
            "conn": -1, "leaf": -1,
        });
        let mut with_jetstream = unlimited.clone();
        for limit in ["mem_storage", "disk_storage", "streams", "consumer"] {
            with_jetstream[limit] = json!(-1);
        }
        let account_of =
            |limits: Value| json!({ "type": "account", "version": 2, "limits": limits });
        let system_is = operator.sign(&system, "SYS", &account_of(unlimited));
        let account_is = operator.sign(&account, "HERALD", &account_of(with_jetstream));
        let may = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
        let user_is = account.sign(&user, "herald", &may);

        let seed = user.seed();
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{user_is}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        fs::write(file, text).context("could not write credentials")?;
        let server = format!(
            "operator: {operator_says}\nsystem_account: {system}\nresolver: MEMORY\n\
             resolver_preload: {{\n  {system}: {system_is}\n  {account}: {account_is}\n}}\n",
            system = system.name(),
            account = account.name(),
        );
        Ok(Self { server })
    }
}

/// What a key is for, as it stands before it.
type Kind = u8;
const OPERATOR: Kind = 14 << 3;
const ACCOUNT: Kind = 0;
const USER: Kind = 20 << 3;
/// Before the kind, when the secret half follows.
const SEED: u8 = 18 << 3;

struct Key {
    kind: Kind,
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl Key {
    fn new(kind: Kind) -> anyhow::Result<Self> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| anyhow!("no random numbers"))?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| anyhow!("no key"))?;
        Ok(Self { kind, seed, pair })
    }

    /// The public half.
    fn name(&self) -> String {
        checked(&[&[self.kind], self.pair.public_key().as_ref()].concat())
    }

    /// The secret half.
    fn seed(&self) -> String {
        let kind = [SEED | (self.kind >> 5), (self.kind & 31) << 3];
        checked(&[&kind, &self.seed[..]].concat())
    }

    /// Says something about another key.
    fn sign(&self, about: &Self, name: &str, nats: &Value) -> String {
        let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
        let claims = json!({
            "jti": about.name(), "iat": 1_700_000_000, "iss": self.name(), "sub": about.name(),
            "name": name, "nats": nats,
        });
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.pair.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// With its checksum (CRC-16, as XMODEM has it) behind, in base32.
fn checked(bytes: &[u8]) -> String {
    let crc = bytes.iter().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    base32(&[bytes, &crc.to_le_bytes()].concat())
}

fn base32(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bit = |at: usize| bytes.get(at / 8).is_some_and(|byte| byte & (0x80 >> (at % 8)) != 0);
    let digits = (0..bytes.len() * 8).step_by(5).map(|at| {
        let digit = (at..at + 5).fold(0, |digit, at| digit << 1 | usize::from(bit(at)));
        char::from(DIGITS[digit])
    });
    digits.collect()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        net::TcpStream,
    };

    use super::*;
    use crate::nats::{Access, Settings};

    #[test]
    fn base32_is_that_of_its_standard_without_padding() {
        assert_eq!(base32(b"foobar"), "MZXW6YTBOI");
        assert_eq!(base32(b"fooba"), "MZXW6YTB");
        // The check value of CRC-16/XMODEM, 0x31C3, lowest byte first.
        assert!(checked(b"123456789").ends_with(&base32(b"123456789\xC3\x31")[14..]));
    }

    /// What a server says to whoever shows this user and signs with this key.
    fn greeting(cluster: &crate::nats::Cluster, user: &str, key: &Ed25519KeyPair) -> String {
        let mut socket = TcpStream::connect(cluster.addresses()[0]).unwrap();
        let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
        let info = lines.next().unwrap().unwrap();
        let info: Value = serde_json::from_str(info.strip_prefix("INFO ").unwrap()).unwrap();
        let signature = key.sign(info["nonce"].as_str().unwrap().as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(signature);
        let connect = json!({ "verbose": false, "jwt": user, "sig": signature });
        write!(socket, "CONNECT {connect}\r\nPING\r\n").unwrap();
        lines.next().unwrap().unwrap()
    }

    #[tokio::test]
    async fn whoever_has_the_file_may_connect_and_nobody_else() {
        let settings = Settings { nodes: 1, access: Access::Credentials, ..Settings::default() };
        let cluster = settings.start().await.unwrap();
        let file = fs::read_to_string(cluster.credentials().unwrap()).unwrap();
        let lines: Vec<&str> = file.lines().collect();
        let (user, seed) = (lines[1], lines[5]);
        assert!(seed.starts_with("SU"));
        // Each digit has five bits; the first two bytes say what it is.
        let bits: Vec<u8> = seed
            .bytes()
            .map(|digit| if digit < b'A' { digit - b'2' + 26 } else { digit - b'A' })
            .flat_map(|digit| (0..5).rev().map(move |bit| digit >> bit & 1))
            .collect();
        let bytes = bits.chunks(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | bit));
        let bytes: Vec<u8> = bytes.collect();
        let key = Ed25519KeyPair::from_seed_unchecked(&bytes[2..34]).unwrap();
        assert_eq!(greeting(&cluster, user, &key), "PONG");
        let other = Key::new(USER).unwrap();
        assert!(greeting(&cluster, user, &other.pair).contains("Authorization Violation"));
    }
}
