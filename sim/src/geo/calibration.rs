//! The geographic model beside measured round trips. The measurements are not part of the tree: where they are absent,
//! the tests say so on standard error and prove nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::{Geography, Matrix, Point, places};

/// A file of the data beside the tree, or a loud word why there is no test.
fn measured(path: &str) -> Option<String> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    match fs::read_to_string(file.join(path)) {
        Ok(text) => Some(text),
        Err(error) => {
            eprintln!(
                "SKIPPED: {path} is not beside this tree ({error}); the geographic model is not compared with \
                 measurements in this run. docs/guides/sim.md says what they are and what was found with them."
            );
            None
        }
    }
}

/// Relative errors of the model over all pairs.
struct Errors {
    /// `|model - measured| / measured`, ascending.
    absolute: Vec<f64>,
    /// `model / measured`, ascending.
    ratio: Vec<f64>,
}

impl Errors {
    fn over(pairs: impl Iterator<Item = (f64, f64)>) -> Errors {
        let ratio: Vec<f64> = pairs
            .filter(|(_, measured)| *measured > 0.0)
            .map(|(model, measured)| model / measured)
            .collect();
        let absolute = ratio.iter().map(|ratio| (ratio - 1.0).abs()).collect();
        let sorted = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values
        };
        Errors {
            absolute: sorted(absolute),
            ratio: sorted(ratio),
        }
    }

    /// Median error, its 90th percentile, and the median of model to measured.
    fn summary(&self) -> (f64, f64, f64) {
        let at = |values: &[f64], share: usize| values[values.len() * share / 100];
        (
            at(&self.absolute, 50),
            at(&self.absolute, 90),
            at(&self.ratio, 50),
        )
    }
}

// Scenario: 22,578 pairs of 213 cities, measured in July 2020, beside the model at the same coordinates. Half of all
// pairs within 12 %, nine of ten within 45 % (short ways that the real Internet takes round a continent are the rest), and
// no bias above 8 %.
#[test]
fn the_model_meets_213_cities() {
    let (Some(table), Some(list)) = (
        measured("latency_wondernetwork/matrix.csv"),
        measured("latency_wondernetwork/metadata.csv"),
    ) else {
        return;
    };
    let matrix = Matrix::parse(&table, Some(&list)).expect("the table");
    let cities: Vec<(usize, Point)> = list
        .lines()
        .skip(1)
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            let degrees = |cell: &str| cell.parse::<f64>().expect("degrees");
            let place = Point::new(degrees(cells[3]), degrees(cells[4]));
            (matrix.find(cells[1]).expect("a row"), place)
        })
        .collect();
    assert_eq!(cities.len(), 213);
    let world = Geography::new();
    let errors = Errors::over(cities.iter().enumerate().flat_map(|(index, (row, place))| {
        let (world, matrix) = (&world, &matrix);
        cities[..index].iter().map(move |(other_row, other)| {
            let model = world.one_way(*place, *other).as_secs_f64();
            (model, matrix.one_way(*row, *other_row).as_secs_f64())
        })
    }));
    let (median, worst_tenth, bias) = errors.summary();
    eprintln!(
        "213 cities, {} pairs: median error {:.1} %, 90th percentile {:.1} %, model/measured {bias:.3}",
        errors.ratio.len(),
        median * 100.0,
        worst_tenth * 100.0
    );
    assert!(errors.ratio.len() > 22_000);
    assert!(median < 0.12, "{median}");
    assert!(worst_tenth < 0.45, "{worst_tenth}");
    assert!((bias - 1.0).abs() < 0.08, "{bias}");
}

// Scenario: the same for 33 regions of a cloud, whose own backbone is straighter than the public Internet. The model was
// not fitted to these. Half within 10 %, nine of ten within 30 %.
#[test]
fn the_model_meets_33_regions() {
    let Some(text) = measured("latency_aws_commonware/p50.json") else {
        return;
    };
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let table: BTreeMap<String, BTreeMap<String, f64>> =
        serde_json::from_value(json["data"].clone()).expect("round trips by region");
    assert_eq!(table.len(), 33);
    let world = Geography::new();
    let errors = Errors::over(table.iter().flat_map(|(from, row)| {
        let world = &world;
        row.iter()
            .filter(move |(to, _)| *to != from)
            .map(move |(to, ms)| {
                assert!(places::find(from).is_some(), "{from}");
                let model = world.between(from, to).expect("a known region");
                (model.as_secs_f64() * 2_000.0, *ms)
            })
    }));
    let (median, worst_tenth, bias) = errors.summary();
    eprintln!(
        "33 regions, {} pairs: median error {:.1} %, 90th percentile {:.1} %, model/measured {bias:.3}",
        errors.ratio.len(),
        median * 100.0,
        worst_tenth * 100.0
    );
    assert_eq!(errors.ratio.len(), 33 * 32);
    assert!(median < 0.10, "{median}");
    assert!(worst_tenth < 0.30, "{worst_tenth}");
    assert!((bias - 1.0).abs() < 0.05, "{bias}");
}
