//! Bits and group of each layer by name, as JSON that people can edit:
//!
//! ```json
//! {"bits": 2, "group_size": 64, "layers": {"model.layers.0.mlp.down_proj": 3, "lm_head": {"bits": 6, "group_size": 32}, "x": "none"}}
//! ```
//!
//! `bits` and `group_size` are for layers that are not named; a number stands for bits in the same group, `"none"` for a layer that
//! stays plain. `about` may hold anything.

use std::collections::{BTreeMap, HashMap};

use planish_format::Packing;
use serde_json::{Map, Value, json};

use crate::Error;

/// Bits and group of each layer, in an order.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocation {
    default: Packing,
    layers: Vec<(String, Option<Packing>)>,
    places: HashMap<String, usize>,
    about: Value,
}

impl Allocation {
    /// `default` for every layer that is not named. `None` is for layers that stay plain; of a name that comes twice the last counts.
    pub fn new(default: Packing, layers: impl IntoIterator<Item = (String, Option<Packing>)>) -> Allocation {
        let mut allocation = Allocation {
            default,
            layers: Vec::new(),
            places: HashMap::new(),
            about: Value::Null,
        };
        for (name, choice) in layers {
            match allocation.places.get(&name) {
                Some(&place) => allocation.layers[place].1 = choice,
                None => {
                    allocation.places.insert(name.clone(), allocation.layers.len());
                    allocation.layers.push((name, choice));
                }
            }
        }
        allocation
    }

    /// With words on where it comes from.
    pub fn about(self, about: Value) -> Allocation {
        Allocation { about, ..self }
    }

    /// Bits and group of layers that are not named.
    pub fn default_packing(&self) -> Packing {
        self.default
    }

    /// All named layers.
    pub fn layers(&self) -> &[(String, Option<Packing>)] {
        &self.layers
    }

    /// How many layers have each width, in words.
    pub fn summary(&self) -> String {
        let mut counts = BTreeMap::new();
        for (_, packing) in &self.layers {
            *counts.entry(packing.map_or(0, Packing::bits)).or_insert(0usize) += 1;
        }
        let words = counts.into_iter().map(|(bits, count)| match bits {
            0 => format!("{count} plain"),
            bits => format!("{count} in {bits} bits"),
        });
        words.collect::<Vec<_>>().join(", ")
    }

    /// What a layer gets, if it is named: `Some(None)` where it stays plain.
    pub fn of(&self, module: &str) -> Option<Option<Packing>> {
        self.places.get(module).map(|&place| self.layers[place].1)
    }

    /// Everything that packed bytes depend on.
    pub(crate) fn identity(&self) -> String {
        format!("{:?}, {:?}", self.default, self.layers)
    }

    /// Reads the JSON above.
    ///
    /// # Errors
    /// [`Error::Allocation`] names the key that is wrong.
    pub fn from_json(text: &str) -> Result<Allocation, Error> {
        let wrong = |what: String| Error::Allocation { what };
        let value: Value = serde_json::from_str(text).map_err(|error| wrong(format!("it is not JSON: {error}")))?;
        let Value::Object(fields) = value else {
            return Err(wrong(
                "expected an object with `bits`, `group_size` and `layers`".to_owned(),
            ));
        };
        const KEYS: [&str; 4] = ["bits", "group_size", "layers", "about"];
        if let Some(key) = fields.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(wrong(format!(
                "`{key}` is no key of it: expected `{}`",
                KEYS.join("`, `")
            )));
        }
        let group = match fields.get("group_size") {
            Some(value) => number(value).ok_or_else(|| wrong(format!("`group_size` is {value}, expected a number")))?,
            None => Packing::DEFAULT_GROUP,
        };
        let bits = fields.get("bits").unwrap_or(&Value::Null);
        let default = packing("bits", bits, group)?.ok_or_else(|| wrong("`bits` is missing".to_owned()))?;
        let layers = match fields.get("layers") {
            Some(Value::Object(layers)) => layers,
            other => {
                let found = other.map_or("missing".to_owned(), Value::to_string);
                return Err(wrong(format!(
                    "`layers` is {found}, expected an object of names and bits"
                )));
            }
        };
        let layers = layers
            .iter()
            .map(|(name, value)| Ok((name.clone(), packing(name, value, group)?)));
        let layers = layers.collect::<Result<Vec<_>, Error>>()?;
        let about = fields.get("about").cloned().unwrap_or_default();
        Ok(Allocation::new(default, layers).about(about))
    }

    /// Writes the JSON above.
    pub fn to_json(&self) -> String {
        let group = self.default.group();
        let value = |choice: &Option<Packing>| match choice {
            None => json!("none"),
            Some(packing) if packing.group() == group => json!(packing.bits()),
            Some(packing) => json!({"bits": packing.bits(), "group_size": packing.group()}),
        };
        let layers: Map<String, Value> = self
            .layers
            .iter()
            .map(|(name, choice)| (name.clone(), value(choice)))
            .collect();
        let mut fields = Map::new();
        if !self.about.is_null() {
            fields.insert("about".to_owned(), self.about.clone());
        }
        fields.insert("bits".to_owned(), self.default.bits().into());
        fields.insert("group_size".to_owned(), group.into());
        fields.insert("layers".to_owned(), Value::Object(layers));
        format!("{:#}\n", Value::Object(fields))
    }
}

fn number(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|number| usize::try_from(number).ok())
}

/// Bits as a number, bits and group as an object, `"none"`.
fn packing(name: &str, value: &Value, group: usize) -> Result<Option<Packing>, Error> {
    let wrong = || Error::Allocation {
        what: format!("`{name}` is {value}, expected bits, {{\"bits\": .., \"group_size\": ..}} or \"none\""),
    };
    let (bits, group) = match value {
        Value::String(word) if word == "none" => return Ok(None),
        Value::Number(_) => (number(value), Some(group)),
        Value::Object(fields) => {
            if fields.keys().any(|key| !matches!(key.as_str(), "bits" | "group_size")) {
                return Err(wrong());
            }
            let own_group = fields.get("group_size").map_or(Some(group), number);
            (fields.get("bits").and_then(number), own_group)
        }
        _ => return Err(wrong()),
    };
    let bits = bits.and_then(|bits| u32::try_from(bits).ok()).ok_or_else(wrong)?;
    let packing = Packing::checked(bits, group.ok_or_else(wrong)?).map_err(|error| Error::Allocation {
        what: format!("`{name}`: {error}"),
    })?;
    Ok(Some(packing))
}
