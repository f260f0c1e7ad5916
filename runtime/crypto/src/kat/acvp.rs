//! NIST's ACVP vectors as `oqs-sys` carries them beside the liboqs source that is linked here.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::{array, verifies_with_context};
use crate::engine;
use crate::ml_dsa::MlDsaSeed;
use crate::{MlDsaKeyPair, MlDsaPublic, MlDsaSignature, seeded};

// FIPS 203 key generation: d and z give both keys.
#[test]
fn ml_kem_768_key_generation() {
    let mut tested = 0;
    for (_, test) in cases("ML-KEM-keyGen-FIPS203", "ML-KEM-768", |_| true) {
        let seed = [bytes(&test, "d"), bytes(&test, "z")].concat();
        let mut public = Box::new([0; engine::ML_KEM_PUBLIC]);
        let mut secret = Box::new([0; engine::ML_KEM_SECRET]);
        engine::ml_kem_keypair(&array(&seed), &mut public, &mut secret).unwrap();
        assert_eq!(public.as_slice(), bytes(&test, "ek"), "{}", test["tcId"]);
        assert_eq!(secret.as_slice(), bytes(&test, "dk"), "{}", test["tcId"]);
        tested += 1;
    }
    assert_eq!(tested, 25);
}

// FIPS 203 encapsulation: m gives ciphertext and secret.
#[test]
fn ml_kem_768_encapsulation() {
    let mut tested = 0;
    let encapsulation = |group: &Value| group["function"] == "encapsulation";
    for (_, test) in cases("ML-KEM-encapDecap-FIPS203", "ML-KEM-768", encapsulation) {
        let mut ciphertext = Box::new([0; engine::ML_KEM_CIPHERTEXT]);
        let mut shared = [0; 32];
        let randomness = seeded::from_bytes(&bytes(&test, "m"));
        engine::ml_kem_encapsulate(&array(&bytes(&test, "ek")), &mut ciphertext, &mut shared)
            .unwrap();
        drop(randomness);
        assert_eq!(ciphertext.as_slice(), bytes(&test, "c"), "{}", test["tcId"]);
        assert_eq!(shared.as_slice(), bytes(&test, "k"), "{}", test["tcId"]);
        tested += 1;
    }
    assert_eq!(tested, 25);
}

// FIPS 203 decapsulation, altered ciphertexts among them: the implicit rejection gives the expected secret too.
#[test]
fn ml_kem_768_decapsulation() {
    let mut tested = 0;
    let decapsulation = |group: &Value| group["function"] == "decapsulation";
    for (group, test) in cases("ML-KEM-encapDecap-FIPS203", "ML-KEM-768", decapsulation) {
        let mut shared = [0; 32];
        let secret = array(&bytes(&group, "dk"));
        engine::ml_kem_decapsulate(&secret, &array(&bytes(&test, "c")), &mut shared).unwrap();
        assert_eq!(shared.as_slice(), bytes(&test, "k"), "{}", test["tcId"]);
        tested += 1;
    }
    assert_eq!(tested, 10);
}

// FIPS 204 key generation, by both engines: AWS-LC expands stored seeds, liboqs signs with the result.
#[test]
fn ml_dsa_65_key_generation() {
    let mut tested = 0;
    for (_, test) in cases("ML-DSA-keyGen-FIPS204", "ML-DSA-65", |_| true) {
        let seed: [u8; 32] = array(&bytes(&test, "seed"));
        let pair = MlDsaKeyPair::from_seed(MlDsaSeed::copied_from(&seed));
        assert_eq!(
            pair.public().as_bytes().as_slice(),
            bytes(&test, "pk"),
            "{}",
            test["tcId"]
        );
        assert_eq!(
            pair.expanded_secret().as_slice(),
            bytes(&test, "sk"),
            "{}",
            test["tcId"]
        );

        let mut public = Box::new([0; engine::ML_DSA_PUBLIC]);
        let mut secret = Box::new([0; engine::ML_DSA_SECRET]);
        let randomness = seeded::from_bytes(&seed);
        engine::ml_dsa_keypair(&mut public, &mut secret);
        drop(randomness);
        assert_eq!(&*public, pair.public().as_bytes());
        assert_eq!(&*secret, pair.expanded_secret());
        tested += 1;
    }
    assert_eq!(tested, 25);
}

// FIPS 204 signing over the external, pure interface, deterministic and hedged.
#[test]
fn ml_dsa_65_signing() {
    let (mut deterministic, mut hedged) = (0, 0);
    for (group, test) in cases("ML-DSA-sigGen-FIPS204", "ML-DSA-65", external_and_pure) {
        let randomness = if group["deterministic"] == true {
            deterministic += 1;
            vec![0; 32]
        } else {
            hedged += 1;
            bytes(&test, "rnd")
        };
        let mut signature = Box::new([0; engine::ML_DSA_SIGNATURE]);
        let randomness = seeded::from_bytes(&randomness);
        engine::ml_dsa_sign(
            &array(&bytes(&test, "sk")),
            &bytes(&test, "message"),
            &bytes(&test, "context"),
            &mut signature,
        )
        .unwrap();
        drop(randomness);
        assert_eq!(
            signature.as_slice(),
            bytes(&test, "signature"),
            "{}",
            test["tcId"]
        );
    }
    assert_eq!((deterministic, hedged), (15, 15));
}

// FIPS 204 verification: altered messages, commitments, hints and responses are refused, the others accepted.
#[test]
fn ml_dsa_65_verification() {
    let (mut accepted, mut refused) = (0, 0);
    for (_, test) in cases("ML-DSA-sigVer-FIPS204", "ML-DSA-65", external_and_pure) {
        let public = MlDsaPublic::from_slice(&bytes(&test, "pk")).unwrap();
        let signature = MlDsaSignature::from_slice(&bytes(&test, "signature")).unwrap();
        let (message, context) = (bytes(&test, "message"), bytes(&test, "context"));
        let verdict = verifies_with_context(&public, &message, &context, &signature);
        assert_eq!(
            verdict,
            test["testPassed"] == true,
            "{}: {}",
            test["tcId"],
            test["reason"]
        );
        if context.is_empty() {
            assert_eq!(
                public.verify(&message, &signature).is_ok(),
                verdict,
                "{}",
                test["tcId"]
            );
        }
        if verdict {
            accepted += 1;
        } else {
            refused += 1;
        }
    }
    assert_eq!((accepted, refused), (3, 12));
}

fn external_and_pure(group: &Value) -> bool {
    group["signatureInterface"] == "external" && group["preHash"] == "pure"
}

fn bytes(value: &Value, field: &str) -> Vec<u8> {
    hex::decode(value[field].as_str().unwrap()).unwrap()
}

/// Every (group, test) of one file for one parameter set.
fn cases(file: &str, parameter_set: &str, wanted: fn(&Value) -> bool) -> Vec<(Value, Value)> {
    let path = vectors().join(file).join("internalProjection.json");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{} is part of oqs-sys: {error}", path.display()));
    let mut set: Value = serde_json::from_str(&text).unwrap();
    let Value::Array(groups) = set["testGroups"].take() else {
        panic!("no test groups")
    };
    let mut cases = Vec::new();
    for mut group in groups {
        if group["parameterSet"] == parameter_set && wanted(&group) {
            let Value::Array(tests) = group["tests"].take() else {
                panic!("no tests")
            };
            cases.extend(tests.into_iter().map(|test| (group.clone(), test)));
        }
    }
    cases
}

/// The platform that this build is for, as rustc names it.
fn host() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().expect("rustc runs");
    let said = String::from_utf8(output.stdout).unwrap();
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("rustc names its host").to_owned()
}

/// Where cargo keeps the source of the `oqs-sys` that this build links.
fn vectors() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--offline",
            // Without it cargo wants the sources of other platforms' packages too, which nothing here has fetched.
            "--filter-platform",
            &host(),
            "--manifest-path",
        ])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let manifest = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .find(|package| package["name"] == "oqs-sys")
        .expect("oqs-sys is a dependency")["manifest_path"]
        .as_str()
        .unwrap();
    PathBuf::from(manifest)
        .with_file_name("liboqs")
        .join("tests/ACVP_Vectors")
}
