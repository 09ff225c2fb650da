//! The rules for `<architecture>.*`: counts, rotary embedding, experts, sliding window.

use super::super::{FromValue, Gguf, Value};
use super::tensors::{Family, FamilyShape};
use super::{Checked, Unusable};

/// llama.cpp has arrays of this many layers and experts.
const MAX_LAYERS: u32 = 512;
const MAX_EXPERTS: u32 = 1024;

/// Beyond this a width is a mistake, and products of widths begin to overflow.
const MAX_WIDTH: u32 = 1 << 20;

/// What all architectures have.
#[derive(Debug)]
pub(super) struct Hyperparameters<'a> {
    architecture: &'a str,
    pub(super) n_layers: u32,
    pub(super) n_embd: u32,
}

impl Hyperparameters<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn find<'g, T: FromValue<'g>>(&self, gguf: &Gguf<'g>, name: &str) -> Result<Option<T>, Unusable> {
        Ok(gguf.find(&self.key(name))?)
    }

    /// A count that must be there and lie within `1..=max`.
    fn require_count(&self, gguf: &Gguf<'_>, name: &str, max: u32) -> Result<u32, Unusable> {
        let count: u32 = gguf.require(&self.key(name))?;
        self.within(name, count, max)
    }

    /// The same of a count that may be missing.
    fn find_count(&self, gguf: &Gguf<'_>, name: &str, max: u32) -> Result<Option<u32>, Unusable> {
        self.find(gguf, name)?.map(|count| self.within(name, count, max)).transpose()
    }

    fn within(&self, name: &str, count: u32, max: u32) -> Result<u32, Unusable> {
        if (1..=max).contains(&count) {
            return Ok(count);
        }
        Err(Unusable::invalid(format!("{} is {count}; 1 to {max} are possible", self.key(name))))
    }

    /// The elements of a key that is one number for all layers, or an array with one for each.
    fn per_layer(&self, gguf: &Gguf<'_>, name: &str) -> Result<Option<Vec<u32>>, Unusable> {
        let key = self.key(name);
        let Some(Value::Array(array)) = gguf.get(&key) else {
            return Ok(gguf.find::<u32>(&key)?.map(|one| vec![one; self.n_layers as usize]));
        };
        match array.to_vec::<u32>() {
            Some(values) if values.len() == self.n_layers as usize => Ok(Some(values)),
            Some(values) => {
                Err(Unusable::invalid(format!("{key} has {} elements for {} layers", values.len(), self.n_layers)))
            }
            None => Err(Unusable::invalid(format!("{key} is an array of {}", array.element_type()))),
        }
    }

    /// The value of a key that must be the same for all layers, in `1..=max`.
    fn uniform(&self, gguf: &Gguf<'_>, name: &str, max: u32) -> Result<Option<u32>, Unusable> {
        let Some(values) = self.per_layer(gguf, name)? else { return Ok(None) };
        if values.iter().any(|&value| value != values[0]) {
            let key = self.key(name);
            return Err(Unusable::unsupported(format!("{key} differs between layers, which this family does not")));
        }
        self.within(name, values[0], max).map(Some)
    }
}

/// Checks what all architectures share.
pub(super) fn check<'a>(gguf: &Gguf<'a>, architecture: &'a str) -> Result<Hyperparameters<'a>, Unusable> {
    let mut model = Hyperparameters { architecture, n_layers: 0, n_embd: 0 };
    check_floats(gguf, &model)?;
    model.n_layers = model.require_count(gguf, "block_count", MAX_LAYERS)?;
    model.n_embd = model.require_count(gguf, "embedding_length", MAX_WIDTH)?;
    model.require_count(gguf, "context_length", i32::MAX as u32)?;
    for name in ["attention.head_count", "attention.head_count_kv", "feed_forward_length"] {
        // Zero is how recurrent layers say that they have none.
        for value in model.per_layer(gguf, name)?.unwrap_or_default() {
            if value > MAX_WIDTH {
                return Err(Unusable::invalid(format!("{} is {value}", model.key(name))));
            }
        }
    }
    let n_nextn = model.find(gguf, "nextn_predict_layers")?.unwrap_or(0);
    if n_nextn >= model.n_layers {
        return Err(Unusable::invalid(format!("{n_nextn} of {} layers predict further tokens", model.n_layers)));
    }
    check_experts(gguf, &model)?;
    check_rope(gguf, &model)?;
    check_window(gguf, &model)?;
    if model.find(gguf, "attention.causal")? == Some(false) {
        return Err(Unusable::unsupported("its attention is not causal: it is an encoder and generates no text"));
    }
    if model.find::<u32>(gguf, "pooling_type")?.is_some_and(|pooling| pooling > 4) {
        return Err(Unusable::invalid(format!("{} is not known", model.key("pooling_type"))));
    }
    Ok(model)
}

/// Numbers that are not finite, and epsilons below zero, which the norms assert.
fn check_floats(gguf: &Gguf<'_>, model: &Hyperparameters<'_>) -> Checked {
    let prefix = model.key("");
    for (key, value) in gguf.metadata().iter().filter(|(key, _)| key.starts_with(&prefix)) {
        let number = match *value {
            Value::F32(number) => f64::from(number),
            Value::F64(number) => number,
            _ => continue,
        };
        // Models without rotary embedding may have a zero here.
        let rotates = Family::of(model.architecture).is_some();
        let must_be_positive = rotates && (key.ends_with("rope.freq_base") || key.ends_with("rope.freq_base_swa"));
        if !number.is_finite() || (key.ends_with("epsilon") && number < 0.0) || (must_be_positive && number <= 0.0) {
            return Err(Unusable::invalid(format!("{key} is {number}")));
        }
    }
    Ok(())
}

fn check_experts(gguf: &Gguf<'_>, model: &Hyperparameters<'_>) -> Checked {
    let n_experts: u32 = model.find(gguf, "expert_count")?.unwrap_or(0);
    let used = model.per_layer(gguf, "expert_used_count")?.unwrap_or_default();
    let n_used = used.into_iter().max().unwrap_or(0);
    let n_groups: u32 = model.find(gguf, "expert_group_count")?.unwrap_or(0);
    let n_groups_used: u32 = model.find(gguf, "expert_group_used_count")?.unwrap_or(0);
    let sound = if n_experts == 0 {
        n_used == 0 && n_groups == 0
    } else {
        let grouped = n_groups <= 1 || n_experts.is_multiple_of(n_groups) && (1..n_groups).contains(&n_groups_used);
        n_experts <= MAX_EXPERTS && (1..=n_experts).contains(&n_used) && n_groups < n_experts && grouped
    };
    if !sound {
        return Err(Unusable::invalid(format!(
            "{n_used} of {n_experts} experts and {n_groups_used} of {n_groups} expert groups are to be used"
        )));
    }
    Ok(())
}

fn check_rope(gguf: &Gguf<'_>, model: &Hyperparameters<'_>) -> Checked {
    let key = model.key("rope.scaling.type");
    match gguf.find::<&str>(&key)? {
        None | Some("none" | "linear" | "yarn" | "longrope") => {}
        Some(other) => return Err(Unusable::invalid(format!("{key} is {other:?}, which is not known"))),
    }
    for name in ["rope.dimension_count", "rope.dimension_count_swa"] {
        if model.find::<u32>(gguf, name)?.is_some_and(|n| n > MAX_WIDTH || !n.is_multiple_of(2)) {
            return Err(Unusable::invalid(format!("{} is odd or absurd", model.key(name))));
        }
    }
    if model.find::<f32>(gguf, "rope.scaling.factor")?.is_some_and(|factor| factor < 0.0) {
        return Err(Unusable::invalid(format!("{key} has a negative factor", key = model.key("rope.scaling.factor"))));
    }
    Ok(())
}

/// llama.cpp asserts that a model with a sliding window has a layer that uses it.
fn check_window(gguf: &Gguf<'_>, model: &Hyperparameters<'_>) -> Checked {
    let window = model.find::<u32>(gguf, "attention.sliding_window")?;
    if window.is_some_and(|window| i32::try_from(window).is_err()) {
        return Err(Unusable::invalid(format!("{} is absurd", model.key("attention.sliding_window"))));
    }
    let key = model.key("attention.sliding_window_pattern");
    let no_layer = match gguf.get(&key) {
        None => false,
        Some(Value::Array(pattern)) => {
            if pattern.len() > MAX_LAYERS as usize {
                return Err(Unusable::invalid(format!("{key} has {} elements", pattern.len())));
            }
            !pattern.values().take(model.n_layers as usize).any(|uses| is_set(&uses))
        }
        Some(_) => gguf.find::<u32>(&key)? == Some(1),
    };
    if no_layer && window != Some(0) {
        return Err(Unusable::invalid(format!("{key} leaves no layer that uses the sliding window")));
    }
    Ok(())
}

fn is_set(value: &Value<'_>) -> bool {
    bool::from_value(value).or_else(|| i32::from_value(value).map(|number| number != 0)).unwrap_or(false)
}

/// Checks the widths of a family we know and returns those that its tensors' shapes follow from.
pub(super) fn family_shape(
    gguf: &Gguf<'_>,
    model: &Hyperparameters<'_>,
    family: Family,
) -> Result<FamilyShape, Unusable> {
    let missing = |name: &str| Unusable::invalid(format!("the metadata key {:?} is missing", model.key(name)));
    let n_head =
        model.uniform(gguf, "attention.head_count", MAX_WIDTH)?.ok_or_else(|| missing("attention.head_count"))?;
    let n_head_kv = model.uniform(gguf, "attention.head_count_kv", MAX_WIDTH)?.unwrap_or(n_head);
    let n_ff = model.uniform(gguf, "feed_forward_length", MAX_WIDTH)?.ok_or_else(|| missing("feed_forward_length"))?;
    if !n_head.is_multiple_of(n_head_kv) {
        return Err(Unusable::invalid(format!("{n_head} query heads cannot share {n_head_kv} key heads evenly")));
    }
    let key_length = model.find_count(gguf, "attention.key_length", MAX_WIDTH)?;
    let value_length = model.find_count(gguf, "attention.value_length", MAX_WIDTH)?;
    if (key_length.is_none() || value_length.is_none()) && !model.n_embd.is_multiple_of(n_head) {
        return Err(Unusable::invalid(format!("a width of {} cannot be divided among {n_head} heads", model.n_embd)));
    }
    let head_dim = key_length.unwrap_or(model.n_embd / n_head);
    if value_length.unwrap_or(model.n_embd / n_head) != head_dim {
        return Err(Unusable::invalid("keys and values have different widths, which this family does not"));
    }
    if model.find(gguf, "nextn_predict_layers")?.unwrap_or(0) != 0 {
        return Err(Unusable::invalid("it has layers that predict further tokens, which this family does not"));
    }
    let rms_key = model.key("attention.layer_norm_rms_epsilon");
    gguf.require::<f32>(&rms_key)?;
    if family == Family::Gemma2 && model.find::<u32>(gguf, "attention.sliding_window")? == Some(0) {
        return Err(Unusable::invalid(format!("{} is 0", model.key("attention.sliding_window"))));
    }
    // A widened head in the window's layers would be another family.
    for name in ["attention.key_length_swa", "attention.value_length_swa"] {
        if model.find::<u32>(gguf, name)?.is_some_and(|width| width != head_dim) {
            return Err(Unusable::invalid(format!("{} is not {head_dim}", model.key(name))));
        }
    }
    let n_rot = check_rotation(gguf, model, family, head_dim)?;
    let n_experts = model.find::<u32>(gguf, "expert_count")?.unwrap_or(0);
    if n_experts > 0 && family != Family::Llama {
        return Err(Unusable::invalid("it has experts, which this family does not"));
    }
    Ok(FamilyShape {
        n_layers: model.n_layers,
        n_embd: model.n_embd.into(),
        n_ff: n_ff.into(),
        n_q: u64::from(n_head) * u64::from(head_dim),
        n_kv: u64::from(n_head_kv) * u64::from(head_dim),
        head_dim: head_dim.into(),
        n_rot: n_rot.into(),
        n_experts: n_experts.into(),
    })
}

/// How many numbers of a head are rotated: an even number, all of them where the family's graph asserts so.
fn check_rotation(
    gguf: &Gguf<'_>,
    model: &Hyperparameters<'_>,
    family: Family,
    head_dim: u32,
) -> Result<u32, Unusable> {
    let n_rot = model.find_count(gguf, "rope.dimension_count", MAX_WIDTH)?.unwrap_or(head_dim);
    let n_rot_swa = model.find_count(gguf, "rope.dimension_count_swa", MAX_WIDTH)?.unwrap_or(n_rot);
    let partial = matches!(family, Family::Phi3 | Family::Gemma2 | Family::Gemma3);
    let sound = |n: u32| n.is_multiple_of(2) && if partial { n <= head_dim } else { n == head_dim };
    if !sound(n_rot) || !sound(n_rot_swa) {
        let key = model.key("rope.dimension_count");
        return Err(Unusable::invalid(format!("{key} is {n_rot} with heads of width {head_dim}")));
    }
    Ok(n_rot)
}
