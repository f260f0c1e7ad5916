//! What is linked, as cargo resolves it.

use std::process::Command;

fn tree(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--prefix", "none", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
        .args(arguments)
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

// Neither this crate nor its build needs OpenSSL, of the system or vendored.
#[test]
fn no_openssl() {
    let tree = tree(&["-p", "pqcnet-crypto", "-e", "normal,build"]);
    assert!(tree.contains("oqs-sys v"), "{tree}");
    assert!(!tree.contains("openssl"), "{tree}");
}

// The binaries' normal dependencies never turn seeded randomness on.
#[test]
fn binaries_do_not_link_seeded_randomness() {
    let tree = tree(&["-p", "pqcnet-node", "-e", "features,normal,build"]);
    assert!(tree.contains("pqcnet-crypto v"), "{tree}");
    assert!(!tree.contains("pqcnet-crypto feature \"seeded\""), "{tree}");
}
