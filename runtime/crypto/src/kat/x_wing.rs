use super::array;
use crate::{KemCiphertext, KemPublic, KemSecret, encapsulate, seeded};

// Every vector of X-Wing's draft: a seed gives the public key, the encapsulation's randomness gives ciphertext and
// secret, and decapsulation gives the same secret.
#[test]
fn draft_vectors() {
    let file: serde_json::Value =
        serde_json::from_str(include_str!("../../vectors/x-wing.json")).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 3);
    for vector in vectors {
        let field = |name: &str| hex::decode(vector[name].as_str().unwrap()).unwrap();
        let secret = KemSecret::from_seed(&array(&field("sk")));
        assert_eq!(
            secret.public(),
            &KemPublic::from_bytes(&field("pk")).unwrap()
        );

        let randomness = seeded::from_bytes(&field("eseed"));
        let (ciphertext, shared) = encapsulate(secret.public()).unwrap();
        drop(randomness);
        assert_eq!(ciphertext, KemCiphertext::from_bytes(&field("ct")).unwrap());
        assert_eq!(shared.expose().as_slice(), field("ss"));
        assert_eq!(
            secret.decapsulate(&ciphertext).unwrap().expose().as_slice(),
            field("ss")
        );
    }
}
