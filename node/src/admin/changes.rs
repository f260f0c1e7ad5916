//! What changed between two documents, as a JSON Merge Patch ([RFC 7396](https://www.rfc-editor.org/rfc/rfc7396)).
//!
//! Exact only for documents without nulls in objects, which a snapshot is.

use serde_json::{Map, Value};

/// The patch that makes `new` of `old`; `None` when there is nothing to do.
pub fn between(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => of_objects(old, new).map(Value::Object),
        _ => (old != new).then(|| new.clone()),
    }
}

fn of_objects(old: &Map<String, Value>, new: &Map<String, Value>) -> Option<Map<String, Value>> {
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let mut patch: Map<String, Value> = gone.map(|key| (key.clone(), Value::Null)).collect();
    for (key, value) in new {
        let changed = match old.get(key) {
            Some(before) => between(before, value),
            None => Some(value.clone()),
        };
        if let Some(changed) = changed {
            patch.insert(key.clone(), changed);
        }
    }
    (!patch.is_empty()).then_some(patch)
}

/// Applies a patch, as a reader of the events does.
pub fn apply(document: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *document = patch.clone();
        return;
    };
    if !document.is_object() {
        *document = Value::Object(Map::new());
    }
    let Value::Object(document) = document else {
        return;
    };
    for (key, change) in patch {
        if change.is_null() {
            document.remove(key);
        } else {
            apply(document.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// The examples of RFC 7396, appendix A, that a document without nulls can have.
    #[test]
    fn known_answers() {
        for (mut document, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"a": [{"b": "c"}]}),
                json!({"a": [1]}),
                json!({"a": [1]}),
            ),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (
                json!({}),
                json!({"a": {"bb": {}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            apply(&mut document, &patch);
            assert_eq!(document, expected, "{patch}");
        }
        let (old, new) = (
            json!({"links": {"1": {"in": 5, "rtt": 9}, "2": {"in": 1}}, "version": 1}),
            json!({"links": {"1": {"in": 7}}, "version": 1}),
        );
        let patch = json!({"links": {"1": {"in": 7, "rtt": null}, "2": null}});
        assert_eq!(between(&old, &new), Some(patch));
        assert_eq!(between(&new, &new), None);
    }

    fn documents() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0u64..4).prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 48, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Whatever two documents are: the patch between them makes the second of the first.
        #[test]
        fn a_patch_makes_the_new_of_the_old(old in documents(), new in documents()) {
            let mut patched = old.clone();
            if let Some(patch) = between(&old, &new) {
                apply(&mut patched, &patch);
            }
            prop_assert_eq!(patched, new);
        }
    }
}
