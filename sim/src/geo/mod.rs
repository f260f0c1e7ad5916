//! How long light takes between two places: a geographic model, or a table that was measured.
//!
//! ```text
//!   place ──access──► hub ──cables of the graph, shortest way──► hub ──access──► place
//!           land fibre      land fibre or sea cable                    land fibre
//! ```
//!
//! [`Geography`] knows cities by name and the cables between them ([`places`]); it multiplies great-circle distance by
//! what fibre on land and at sea is longer than it. [`Matrix`] reads measured tables. Both give one-way base delays; what
//! comes on top (queues, jitter) is the link's. Pure, and computed with `libm`: the same on any machine.

mod matrix;
pub mod places;
mod routes;

#[cfg(test)]
mod calibration;

pub use matrix::{Matrix, MatrixError};
pub use routes::Geography;

/// A point on the globe, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// North of the equator.
    pub latitude: f64,
    /// East of Greenwich.
    pub longitude: f64,
}

/// Mean radius of the Earth.
const EARTH_KM: f64 = 6_371.0;

impl Point {
    /// A point by degrees north and east.
    pub const fn new(latitude: f64, longitude: f64) -> Point {
        Point {
            latitude,
            longitude,
        }
    }

    /// Great-circle distance (haversine, <https://en.wikipedia.org/wiki/Haversine_formula>).
    pub fn distance_km(self, other: Point) -> f64 {
        let rad = |degrees: f64| degrees * (core::f64::consts::PI / 180.0);
        let half = |a: f64, b: f64| {
            let sine = libm::sin((rad(b) - rad(a)) / 2.0);
            sine * sine
        };
        let across = libm::cos(rad(self.latitude)) * libm::cos(rad(other.latitude));
        let h =
            half(self.latitude, other.latitude) + across * half(self.longitude, other.longitude);
        2.0 * EARTH_KM * libm::asin(libm::sqrt(h.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Scenario: distances that any atlas gives: London to New York 5,570 km, and the half circumference between poles.
    #[test]
    fn distances_are_those_of_an_atlas() {
        let london = Point::new(51.507, -0.128);
        let new_york = Point::new(40.713, -74.006);
        assert_eq!(london.distance_km(new_york).round(), 5_570.0);
        let poles = Point::new(90.0, 0.0).distance_km(Point::new(-90.0, 0.0));
        assert_eq!(poles.round(), 20_015.0);
        assert_eq!(london.distance_km(london), 0.0);
    }
}
