//! Options that make no sense, and some that are only unusual.

use super::common::isolated;
use super::common::quantize::WeightType;
use super::common::random_model::{Family, random_model};
use super::{EXECUTORS, File, answer, checked, gentle, refused, sizes, small};
use fulcrum::model::{ExecutorChoice, ModelFile};
use fulcrum::sampling::SamplerSettings;
use fulcrum::session::{GenerationOptions, SessionOptions};
use fulcrum::{Drafting, ErrorKind, Kernels, KvType, MemoryBudget, Model, ModelOptions, Result};

#[test]
fn absurd_model_options_are_refused_by_name() {
    isolated::each("options::absurd_model_options_are_refused_by_name", 0..2, |i| {
        let file = File::new(&small().write());
        let with = |change: &dyn Fn(&mut ModelOptions)| {
            let mut options = gentle(EXECUTORS[i]);
            change(&mut options);
            refused(answer(file.path(), options))
        };
        assert_eq!(with(&|o| o.context_length = Some(0)), "context_length");
        assert_eq!(with(&|o| o.context_length = Some(usize::MAX)), "context_length");
        assert_eq!(with(&|o| o.context_length = Some(1 << 31)), "context_length");
        assert_eq!(with(&|o| o.threads = Some(0)), "threads");
        assert_eq!(with(&|o| o.threads = Some(513)), "threads");
        assert_eq!(with(&|o| o.threads = Some(100_000)), "threads");
        assert_eq!(with(&|o| o.batch_size = 0), "batch_size");
        assert_eq!(with(&|o| o.batch_size = usize::MAX), "batch_size");
        assert_eq!(with(&|o| o.cpu_mask = Some(Vec::new())), "cpu_mask");
        assert_eq!(with(&|o| o.cpu_mask = Some(vec![usize::MAX])), "cpu_mask");
    });
}

#[test]
fn what_loading_refuses_is_not_forecast() {
    let file = File::new(&small().write());
    let with = |change: &dyn Fn(&mut ModelOptions)| {
        let mut options = ModelOptions { memory_budget: MemoryBudget::Bytes(64 << 20), ..gentle(EXECUTORS[0]) };
        change(&mut options);
        refused(ModelFile::open(file.path()).unwrap().forecast(&options))
    };
    assert_eq!(with(&|o| o.context_length = Some(0)), "context_length");
    assert_eq!(with(&|o| o.context_length = Some(usize::MAX)), "context_length");
    assert_eq!(with(&|o| o.batch_size = 0), "batch_size");
    assert_eq!(with(&|o| o.batch_size = usize::MAX), "batch_size");
    assert_eq!(with(&|o| o.threads = Some(0)), "threads");
    for share in [f32::NAN, f32::INFINITY, -1.0] {
        assert_eq!(with(&|o| o.memory_budget = MemoryBudget::Share(share)), "memory_budget");
    }
}

#[test]
fn only_our_kernels_or_an_error() {
    isolated::each("options::only_our_kernels_or_an_error", 0..2, |i| {
        let strict = ModelOptions { kernels: Kernels::Own, ..gentle(EXECUTORS[i]) };
        let of = |weights| File::new(&random_model(Family::Llama, &sizes(Family::Llama).weights(weights)).write());
        assert_eq!(refused(answer(of(WeightType::F16).path(), strict.clone())), "kernels");
        let answered = answer(of(WeightType::Q8_0).path(), strict);
        match EXECUTORS[i] {
            ExecutorChoice::LlamaCpp => assert_eq!(refused(answered), "kernels"),
            _ => _ = answered.unwrap(),
        }
    });
}

#[test]
fn unusual_model_options_work() {
    isolated::each("options::unusual_model_options_work", 0..2, |i| {
        let file = File::new(&small().write());
        let with = |change: &dyn Fn(&mut ModelOptions)| {
            let mut options = gentle(EXECUTORS[i]);
            change(&mut options);
            answer(file.path(), options)
        };
        let plain = with(&|_| ()).unwrap().text;
        assert_eq!(with(&|o| o.batch_size = 1).unwrap().text, plain);
        assert_eq!(with(&|o| o.batch_size = 65_536).unwrap().text, plain);
        assert_eq!(with(&|o| o.threads = Some(33)).unwrap().text, plain);
        // A processor that is not there: the threads run where they can.
        assert_eq!(with(&|o| o.cpu_mask = Some(vec![511])).unwrap().text, plain);
        let full = checked(with(&|o| o.context_length = Some(1)).unwrap_err());
        assert!(matches!(full, ErrorKind::ContextFull { capacity: 1, .. }), "{full}");
    });
}

#[test]
fn a_quantised_cache_needs_heads_of_whole_blocks() {
    isolated::each("options::a_quantised_cache_needs_heads_of_whole_blocks", 0..8, |i| {
        let head_dim = [16, 24, 48, 80][i / 2];
        let shape = super::Sizes { head_dim, ..sizes(Family::Llama) };
        let file = File::new(&random_model(Family::Llama, &shape.weights(WeightType::F32)).write());
        answer(file.path(), gentle(EXECUTORS[i % 2])).unwrap();
        let options = ModelOptions { kv_type: KvType::Q8_0, ..gentle(EXECUTORS[i % 2]) };
        assert_eq!(refused(answer(file.path(), options)), "kv_type");
    });
}

fn complete(session: &fulcrum::ChatSession, options: &GenerationOptions) -> Result<String> {
    Ok(session.complete("hello", options)?.finish()?.text)
}

#[test]
fn absurd_generation_options_are_refused_and_the_session_goes_on() {
    isolated::each("options::absurd_generation_options_are_refused_and_the_session_goes_on", 0..2, |i| {
        let file = File::new(&small().write());
        let model = Model::load(file.path(), gentle(EXECUTORS[i])).unwrap();
        let session = model.session(SessionOptions::default()).unwrap();
        let with = |change: &dyn Fn(&mut SamplerSettings)| {
            let mut options = GenerationOptions { max_tokens: Some(4), ..GenerationOptions::default() };
            change(&mut options.sampler);
            refused(complete(&session, &options))
        };
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0] {
            assert_eq!(with(&|s| s.temperature = bad), "temperature");
            assert_eq!(with(&|s| s.top_p = bad), "top_p");
            assert_eq!(with(&|s| s.min_p = bad), "min_p");
            assert_eq!(with(&|s| s.typical_p = bad), "typical_p");
            assert_eq!(with(&|s| s.repetition_penalty = bad), "repetition_penalty");
            assert_eq!(with(&|s| s.dry.multiplier = bad), "dry.multiplier");
            assert_eq!(with(&|s| s.dry.base = bad), "dry.base");
        }
        assert_eq!(with(&|s| s.frequency_penalty = f32::NAN), "frequency_penalty");
        assert_eq!(with(&|s| s.presence_penalty = f32::INFINITY), "presence_penalty");
        assert_eq!(with(&|s| s.logit_bias = vec![(u32::MAX, 1.0)]), "logit_bias");
        assert_eq!(with(&|s| s.logit_bias = vec![(0, f32::NAN)]), "logit_bias");
        let plain = GenerationOptions::default();
        assert_eq!(
            refused(complete(&session, &GenerationOptions { max_tokens: Some(0), ..plain.clone() })),
            "max_tokens"
        );
        assert_eq!(refused(complete(&session, &GenerationOptions { stop: vec![String::new()], ..plain })), "stop");
        complete(&session, &GenerationOptions { max_tokens: Some(4), ..GenerationOptions::default() }).unwrap();
    });
}

/// In contexts too, that hold hardly a draft.
#[test]
fn drafts_of_any_length_give_the_same_answer() {
    isolated::each("options::drafts_of_any_length_give_the_same_answer", 0..2, |i| {
        let file = File::new(&small().write());
        let model = Model::load(file.path(), gentle(EXECUTORS[i])).unwrap();
        let model = model.with_draft(&model).unwrap();
        for context_length in [Some(1), Some(2), Some(17), None] {
            let session = model.session(SessionOptions { context_length, ..SessionOptions::default() }).unwrap();
            let answer = |drafting| {
                let options = GenerationOptions { drafting, max_tokens: Some(16), ..GenerationOptions::default() };
                session.complete("a", &options).unwrap().finish().unwrap().tokens
            };
            let plain = answer(Drafting::Off);
            for n in [0, 1, 63, 64, usize::MAX] {
                assert_eq!(answer(Drafting::Chain { n }), plain, "{context_length:?} {n}");
            }
        }
    });
}

/// Allowed, and at the edge of arithmetic.
#[test]
fn extreme_generation_options_give_an_answer() {
    isolated::each("options::extreme_generation_options_give_an_answer", 0..2, |i| {
        let file = File::new(&small().write());
        let model = Model::load(file.path(), gentle(EXECUTORS[i])).unwrap();
        let session = model.session(SessionOptions::default()).unwrap();
        let forbidden: Vec<(u32, f32)> = (0..320).map(|token| (token, f32::NEG_INFINITY)).collect();
        let hot = SamplerSettings { temperature: 1.0, ..SamplerSettings::default() };
        for sampler in [
            SamplerSettings { temperature: f32::MAX, ..hot.clone() },
            SamplerSettings { temperature: f32::MIN_POSITIVE, ..hot.clone() },
            SamplerSettings { top_p: 0.0, min_p: 1.0, typical_p: 0.0, ..hot.clone() },
            SamplerSettings { top_k: usize::MAX, logprobs: Some(usize::MAX), ..hot.clone() },
            SamplerSettings { repetition_penalty: f32::MIN_POSITIVE, penalty_window: Some(usize::MAX), ..hot.clone() },
            SamplerSettings { frequency_penalty: f32::MAX, presence_penalty: f32::MIN, ..hot.clone() },
            SamplerSettings { logit_bias: vec![(3, f32::MAX), (3, f32::MAX), (4, f32::MIN)], ..hot.clone() },
        ] {
            let options = GenerationOptions { sampler, max_tokens: Some(8), ..GenerationOptions::default() };
            complete(&session, &options).unwrap();
        }
        // Nothing is left to choose: an error or an answer, and the session goes on.
        let nothing = SamplerSettings { logit_bias: forbidden, ..hot };
        let options = GenerationOptions { sampler: nothing, max_tokens: Some(8), ..GenerationOptions::default() };
        let _ = complete(&session, &options).map_err(checked);
        let unlimited = GenerationOptions { max_tokens: Some(usize::MAX), ..GenerationOptions::default() };
        complete(&session, &unlimited).unwrap();
    });
}
