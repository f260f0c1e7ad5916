//! The named peer: rustls, TLS 1.3 only, X25519MLKEM768 only, both sides with a certificate.

use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName, RootCertStore,
    ServerConfig, ServerConnection, SignatureScheme,
};

/// The two configurations of one peer.
#[derive(Clone)]
pub struct Tls {
    /// The dialling side.
    pub client: Arc<ClientConfig>,
    /// The listening side.
    pub server: Arc<ServerConfig>,
}

/// The name in both certificates.
pub const NAME: &str = "pqcnet.invalid";

impl Tls {
    /// Mutual self-signed certificates with keys of this algorithm, each in the other's root store. No session is
    /// resumed and no ticket sent, since QSTP has neither.
    pub fn mutual(algorithm: &'static SignatureAlgorithm) -> anyhow::Result<Tls> {
        let (client_cert, client_key) = certificate(algorithm)?;
        let (server_cert, server_key) = certificate(algorithm)?;
        let provider = Arc::new(provider());
        let trusts_server = roots(&server_cert)?;
        let trusts_client = Arc::new(roots(&client_cert)?);

        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(trusts_server)
            .with_client_auth_cert(vec![client_cert], client_key)?;
        client.resumption = Resumption::disabled();

        let verifier =
            WebPkiClientVerifier::builder_with_provider(trusts_client, provider.clone()).build()?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![server_cert], server_key)?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Tls {
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }

    /// The same keys, but each side knows the other's certificate beforehand and only compares it: no chain is verified, as
    /// in QSTP, where a key's hash is the name that was dialled.
    pub fn pinned(algorithm: &'static SignatureAlgorithm) -> anyhow::Result<Tls> {
        let (client_cert, client_key) = certificate(algorithm)?;
        let (server_cert, server_key) = certificate(algorithm)?;
        let provider = Arc::new(provider());
        let pin = |cert: &CertificateDer<'static>| {
            Arc::new(Pinned {
                cert: cert.clone(),
                algorithms: provider.signature_verification_algorithms,
            })
        };
        let (trusts_server, trusts_client) = (pin(&server_cert), pin(&client_cert));
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(trusts_server)
            .with_client_auth_cert(vec![client_cert], client_key)?;
        client.resumption = Resumption::disabled();
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(trusts_client)
            .with_single_cert(vec![server_cert], server_key)?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Tls {
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }

    /// Fresh connections of both sides.
    pub fn pair(&self) -> anyhow::Result<(ClientConnection, ServerConnection)> {
        let client = ClientConnection::new(self.client.clone(), name()?)?;
        Ok((client, ServerConnection::new(self.server.clone())?))
    }
}

/// The name a client dials.
pub fn name() -> anyhow::Result<ServerName<'static>> {
    ServerName::try_from(NAME).context("server name")
}

fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
        ..aws_lc_rs::default_provider()
    }
}

fn certificate(
    algorithm: &'static SignatureAlgorithm,
) -> anyhow::Result<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
    let key = KeyPair::generate_for(algorithm)?;
    let cert = CertificateParams::new(vec![NAME.to_owned()])?.self_signed(&key)?;
    let der = PrivateKeyDer::try_from(key.serialize_der())
        .map_err(|error| anyhow::anyhow!("private key: {error}"))?;
    Ok((cert.der().clone(), der))
}

fn roots(cert: &CertificateDer<'static>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(cert.clone())?;
    Ok(roots)
}

/// Takes one certificate, and verifies the handshake's signature with its key.
#[derive(Debug)]
struct Pinned {
    cert: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pinned {
    fn check(&self, cert: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        if *cert == self.cert {
            Ok(())
        } else {
            Err(rustls::CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }
}

/// Only TLS 1.3 is configured.
fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::PeerIncompatible::Tls12NotOffered.into())
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(cert).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        cert: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(cert).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
