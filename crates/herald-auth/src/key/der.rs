//! The little of DER that turns a SEC1 key into PKCS#8, which is what ring reads.

/// The object identifier of a curve's key, as the contents of PKCS#8's `AlgorithmIdentifier`: `ecPublicKey` and the curve.
const P256_ALGORITHM: &[u8] = &[
    0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, // 1.2.840.10045.2.1
    0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07, // 1.2.840.10045.3.1.7
];
const P384_ALGORITHM: &[u8] = &[
    0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, // 1.2.840.10045.2.1
    0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x22, // 1.3.132.0.34
];

const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;
const VERSION_0: &[u8] = &[0x02, 0x01, 0x00];

/// The two readings of a SEC1 key (RFC 5915) as PKCS#8 (RFC 5208): on P-256, and on P-384. Only one of them will be taken,
/// since the key names its curve, or has its length.
pub(super) fn pkcs8_of_sec1(sec1: &[u8]) -> [Vec<u8>; 2] {
    [P256_ALGORITHM, P384_ALGORITHM].map(|algorithm| {
        let mut info = VERSION_0.to_vec();
        push(&mut info, SEQUENCE, algorithm);
        push(&mut info, OCTET_STRING, sec1);
        let mut pkcs8 = Vec::new();
        push(&mut pkcs8, SEQUENCE, &info);
        pkcs8
    })
}

fn push(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    let bytes = content.len().to_be_bytes();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let significant = &bytes[zeros..];
    match significant {
        [] => out.push(0),
        [short @ 0..=0x7F] => out.push(*short),
        _ => {
            out.push(0x80 | u8::try_from(significant.len()).expect("a length has at most 8 bytes"));
            out.extend_from_slice(significant);
        }
    }
    out.extend_from_slice(content);
}
