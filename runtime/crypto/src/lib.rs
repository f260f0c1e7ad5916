//! KEM, signature, AEAD and KDF suites, key types that zeroise, key files, known-answer self-test.
