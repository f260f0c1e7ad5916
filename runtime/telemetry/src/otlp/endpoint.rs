//! Where telemetry is sent, so that nobody on the way reads it: over TLS, or to this machine.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use tonic::transport::Uri;

/// A collector's address: `http://` on loopback, `https://` anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    text: String,
    tls: bool,
}

impl Endpoint {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether TLS is spoken.
    pub fn is_tls(&self) -> bool {
        self.tls
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What is wrong with an endpoint; the operator erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not scheme, host and port and nothing else.
    #[error("`{0}` is no collector's address: write https://host:4317, or http://127.0.0.1:4317")]
    Shape(String),
    /// A name for this machine that somebody may point elsewhere.
    #[error("`{0}` is a name, and names may lead off this machine: write http://127.0.0.1:{1}")]
    Name(String, u16),
    /// Another machine without TLS.
    #[error("`{0}` would send telemetry in clear text to another machine")]
    ClearText(String),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Endpoint, EndpointError> {
        let shape = || EndpointError::Shape(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| shape())?;
        let (Some(scheme), Some(host), Some(port)) = (uri.scheme_str(), uri.host(), uri.port_u16())
        else {
            return Err(shape());
        };
        let bare = format!("{scheme}://{host}:{port}");
        if text != bare && text != format!("{bare}/") {
            return Err(shape());
        }
        let tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(shape()),
        };
        let ip: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        match ip {
            _ if tls => {}
            Some(ip) if ip.is_loopback() => {}
            None if host == "localhost" => {
                return Err(EndpointError::Name(host.to_owned(), port));
            }
            Some(_) | None => return Err(EndpointError::ClearText(text.to_owned())),
        }
        Ok(Endpoint { text: bare, tls })
    }
}

/// Of all traces that begin at a node so many are recorded: 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio(f64);

impl Ratio {
    /// As a number from 0 to 1.
    pub fn get(self) -> f64 {
        self.0
    }
}

// Never a NaN.
impl Eq for Ratio {}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Not a number from 0 to 1; the operator erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no ratio: a number from 0.0 (nothing) to 1.0 (everything)")]
pub struct RatioError(String);

impl FromStr for Ratio {
    type Err = RatioError;

    fn from_str(text: &str) -> Result<Ratio, RatioError> {
        let ratio = text.parse().ok();
        match ratio.filter(|ratio| (0.0..=1.0).contains(ratio)) {
            Some(ratio) => Ok(Ratio(ratio)),
            None => Err(RatioError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    // Scenario: loopback in clear text and any host over TLS are taken; everything that leaves the machine readable, or
    // might, is refused with what to write instead.
    use super::*;

    #[test]
    fn loopback_or_tls() {
        for (good, tls) in [
            ("http://127.0.0.1:4317", false),
            ("http://127.9.9.9:1", false),
            ("http://[::1]:4317", false),
            ("https://collector.example:4317", true),
            ("https://10.1.2.3:4317", true),
        ] {
            let endpoint: Endpoint = good.parse().unwrap();
            assert_eq!((endpoint.as_str(), endpoint.is_tls()), (good, tls));
        }
        assert_eq!(
            "http://127.0.0.1:1/".parse::<Endpoint>().unwrap().as_str(),
            "http://127.0.0.1:1"
        );
    }

    #[test]
    fn clear_text_stays_on_this_machine() {
        let refused = |text: &str| text.parse::<Endpoint>().unwrap_err();
        for text in [
            "http://10.0.0.1:4317",
            "http://collector:4317",
            "http://[2001:db8::1]:1",
        ] {
            assert_eq!(refused(text), EndpointError::ClearText(text.to_owned()));
        }
        assert_eq!(
            refused("http://localhost:4317").to_string(),
            "`localhost` is a name, and names may lead off this machine: write http://127.0.0.1:4317"
        );
        for text in [
            "",
            "127.0.0.1:4317",
            "grpc://127.0.0.1:4317",
            "http://127.0.0.1",
            "https://user:word@collector:4317",
            "https://collector:4317/v1/traces",
            "http://127.0.0.1:99999",
        ] {
            assert_eq!(refused(text), EndpointError::Shape(text.to_owned()));
        }
    }

    #[test]
    fn ratios_lie_between_nothing_and_everything() {
        for (good, value) in [("0", 0.0), ("0.01", 0.01), ("1.0", 1.0)] {
            assert_eq!(good.parse::<Ratio>().map(Ratio::get), Ok(value));
        }
        for bad in ["-0.1", "1.1", "NaN", "all", ""] {
            assert_eq!(bad.parse::<Ratio>(), Err(RatioError(bad.to_owned())));
        }
        assert_eq!("1".parse::<Ratio>().unwrap().to_string(), "1.0");
    }
}
