//! What is asked of the device that chooses the next token: settings, one random number per token, penalties of the tokens so far.

use std::collections::{HashMap, HashSet};

use planish_model::{Adjustment, Choice, Chooser, Draw, adjust};

use crate::form::Form;
use crate::mask::Mask;
use crate::random::Random;
use crate::restrictions::Restrictions;
use crate::warpers::{Cutoffs, Drawer};
use crate::{Error, GenerationPlan};

/// How a token is chosen; see [`crate::GenerationConfig`] for the meaning of each field.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "documented at GenerationConfig")]
pub struct Sampling {
    pub do_sample: bool,
    pub temperature: f32,
    pub top_k: usize,
    pub top_p: f32,
    pub min_p: f32,
    pub repetition_penalty: f32,
    pub presence_penalty: f32,
    pub frequency_penalty: f32,
    pub seed: u64,
    pub cutoffs: Cutoffs,
}

/// Below it a logit over the temperature may be no number any more, and anything but the likeliest token has no chance.
const LEAST_TEMPERATURE: f32 = 1e-30;

impl Sampling {
    /// Whether tokens are drawn; else the likeliest is always taken.
    pub fn draws(&self) -> bool {
        self.do_sample && self.temperature >= LEAST_TEMPERATURE
    }

    /// Whether what was said matters.
    fn penalizes(&self) -> bool {
        self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }

    /// # Errors
    /// [`Error::Option`] for a value outside its range.
    pub fn check(&self) -> Result<(), Error> {
        let error = |option, found: f32, expected| {
            Err(Error::Option {
                option,
                found: found.to_string(),
                expected,
            })
        };
        let unit = 0.0..=1.0;
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return error("temperature", self.temperature, "a number of at least 0");
        }
        if !unit.contains(&self.top_p) {
            return error("top_p", self.top_p, "a number from 0 to 1");
        }
        if !unit.contains(&self.min_p) {
            return error("min_p", self.min_p, "a number from 0 to 1");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return error("repetition_penalty", self.repetition_penalty, "a number above 0");
        }
        if let Some(mass) = self.cutoffs.typical_p.filter(|mass| mass.is_nan() || *mass <= 0.0) {
            return error("typical_p", mass, "a number above 0");
        }
        if let Some(share) = self.cutoffs.top_h.filter(|share| !(*share > 0.0 && *share <= 1.0)) {
            return error("top_h", share, "a number above 0, at most 1");
        }
        for (option, penalty) in [
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
        ] {
            if !penalty.is_finite() {
                return error(option, penalty, "a number");
            }
        }
        Ok(())
    }
}

/// Settings of an answer, its random stream, and the penalties of what was said.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    restrictions: Restrictions,
    ends: Vec<u32>,
    prompt: usize,
    /// Tokens that there may be, the prompt's among them.
    most: usize,
    vocabulary: usize,
    mask: Option<Mask>,
    form: Option<Form>,
    /// What mask and form both allow, where there is a form.
    formed: Vec<u32>,
    random: Random,
    drawer: Drawer,
    adjustments: Vec<Adjustment>,
    /// Where those stand that are not for the next token only, by their tokens: the first of all.
    places: HashMap<u32, usize>,
    /// What the biases of the next token changed of these: where, and what was there.
    changed: Vec<(usize, f32)>,
    /// Tokens of the answer, where that matters.
    said: HashSet<u32>,
}

impl Sampler {
    /// Starts the random stream of the seed; every token may be chosen.
    pub fn new(sampling: Sampling) -> Sampler {
        Sampler {
            random: Random::new(sampling.seed),
            drawer: Drawer::default(),
            sampling,
            restrictions: Restrictions::default(),
            ends: Vec::new(),
            prompt: 0,
            most: usize::MAX,
            vocabulary: usize::MAX,
            mask: None,
            form: None,
            formed: Vec::new(),
            adjustments: Vec::new(),
            places: HashMap::new(),
            changed: Vec::new(),
            said: HashSet::new(),
        }
    }

    /// By a plan, for an answer to `prompt` of a model with so large a vocabulary.
    pub fn of(plan: &GenerationPlan, prompt: &[u32], vocabulary: usize) -> Sampler {
        let restrictions = &plan.restrictions;
        // As in transformers, an end token is no bad word.
        let single = restrictions
            .bad_words
            .iter()
            .filter(|word| word.len() == 1)
            .map(|word| word[0]);
        let single = single.filter(|token| !plan.eos_token_id.contains(token));
        let never = restrictions.suppressed.iter().copied().chain(single);
        let restricted = restrictions.depend_on_tokens(prompt.len()) || never.clone().next().is_some();
        let mut sampler = Sampler {
            mask: restricted.then(|| Mask::new(vocabulary, never)),
            form: Form::of(plan, vocabulary),
            restrictions: restrictions.clone(),
            ends: plan.eos_token_id.clone(),
            prompt: prompt.len(),
            most: prompt.len().saturating_add(plan.max_new_tokens),
            vocabulary,
            ..Sampler::new(plan.sampling.clone())
        };
        for &(token, bias) in &restrictions.token_biases {
            if let Some(adjustment) = sampler.adjustment(token) {
                adjustment.bias += bias;
            }
        }
        let penalty = restrictions.prompt_penalty.map_or(1.0, |penalty| 1.0 / penalty);
        sampler.penalize(prompt, penalty * sampler.sampling.repetition_penalty);
        sampler
    }

    /// Whether a choice depends on the tokens before it.
    pub fn depends_on_tokens(&self) -> bool {
        let biased = !self.restrictions.biases.is_empty();
        let formed = self.form.is_some() || self.cuts();
        formed || self.sampling.penalizes() || biased || self.restrictions.depend_on_tokens(self.prompt)
    }

    /// Whether some choice may be made by [`Sampler::choose`], see [`Sampler::reads_logits`].
    pub fn may_read_logits(&self) -> bool {
        let Restrictions {
            end_growth,
            forced_last,
            ..
        } = &self.restrictions;
        self.cuts() || end_growth.is_some() || forced_last.len() > 1
    }

    /// Makes the answer go on in its form. Whether nothing can follow.
    ///
    /// # Errors
    /// [`Error::Constraint`]: what follows was not found in bounded time.
    pub fn form(&mut self, token: Option<u32>) -> Result<bool, Error> {
        self.formed.clear();
        let Some(form) = &mut self.form else { return Ok(false) };
        if let Some(token) = token
            && form.take(token)?
        {
            return Ok(true);
        }
        if let Some(words) = form.allowed()? {
            self.formed.extend_from_slice(words);
        }
        Ok(false)
    }

    /// Takes note of tokens of the answer.
    pub fn observe(&mut self, tokens: &[u32]) {
        self.penalize(tokens, self.sampling.repetition_penalty);
        let Sampling {
            presence_penalty: presence,
            frequency_penalty: frequency,
            ..
        } = self.sampling;
        if presence == 0.0 && frequency == 0.0 {
            return;
        }
        self.forget_biases();
        for &token in tokens {
            let first = self.said.insert(token);
            if let Some(adjustment) = self.adjustment(token) {
                adjustment.bias -= frequency + if first { presence } else { 0.0 };
            }
        }
    }

    fn penalize(&mut self, tokens: &[u32], penalty: f32) {
        if penalty == 1.0 {
            return;
        }
        self.forget_biases();
        for &token in tokens {
            // Once a token, however often it occurred.
            if let Some(adjustment) = self.adjustment(token).filter(|adjustment| adjustment.penalty == 1.0) {
                adjustment.penalty = penalty;
            }
        }
    }

    /// What changes the logit of a token for good. `None` for one that the model does not have.
    fn adjustment(&mut self, token: u32) -> Option<&mut Adjustment> {
        if token as usize >= self.vocabulary {
            return None;
        }
        let end = self.adjustments.len();
        let index = *self.places.entry(token).or_insert(end);
        if index == end {
            self.adjustments.push(Adjustment {
                token,
                penalty: 1.0,
                bias: 0.0,
            });
        }
        self.adjustments.get_mut(index)
    }

    /// Leaves no adjustment that was for one token only.
    fn forget_biases(&mut self) {
        self.adjustments.truncate(self.places.len());
        for (index, bias) in self.changed.drain(..).rev() {
            self.adjustments[index].bias = bias;
        }
    }

    fn bias(&mut self, tokens: &[u32]) {
        self.forget_biases();
        let Sampler {
            adjustments,
            changed,
            places,
            ..
        } = self;
        let (vocabulary, lasting) = (self.vocabulary, places.len());
        self.restrictions.biased(tokens, &mut |token, bias| {
            if token as usize >= vocabulary {
                return;
            }
            let known = places.get(&token).copied();
            let is_it = |adjustment: &Adjustment| adjustment.token == token;
            let place = known.or_else(|| Some(lasting + adjustments[lasting..].iter().position(is_it)?));
            match place {
                Some(index) => {
                    if known.is_some() {
                        changed.push((index, adjustments[index].bias));
                    }
                    adjustments[index].bias += bias;
                }
                None => adjustments.push(Adjustment {
                    token,
                    penalty: 1.0,
                    bias,
                }),
            }
        });
    }

    /// How the token after these is chosen. Each call draws a number.
    pub fn next_choice(&mut self, tokens: &[u32]) -> Choice {
        if let Some(mask) = &mut self.mask {
            mask.allow_again();
            // Ahead of its token nothing is known of it; then nothing depends on it either.
            if tokens.len() >= self.prompt {
                let forbid = &mut |token| mask.forbid_now(token);
                self.restrictions.forbidden(tokens, self.prompt, &self.ends, forbid);
                mask.allow_only(self.restrictions.forced(tokens.len(), self.most));
            }
            let both = |formed: &mut u32, mask: &u32| *formed &= mask;
            let allowed = self
                .formed
                .iter()
                .zip(&mask.words)
                .any(|(formed, mask)| formed & mask != 0);
            if allowed {
                self.formed
                    .iter_mut()
                    .zip(&mask.words)
                    .for_each(|(formed, mask)| both(formed, mask));
            }
        }
        if !self.restrictions.biases.is_empty() && tokens.len() >= self.prompt {
            self.bias(tokens);
        }
        if !self.sampling.draws() {
            return Choice::Likeliest;
        }
        Choice::Drawn(Draw {
            temperature: self.sampling.temperature,
            top_k: self.sampling.top_k,
            top_p: self.sampling.top_p,
            min_p: self.sampling.min_p,
            unit: self.random.next_unit(),
        })
    }

    /// Whether the token after these is chosen by [`Sampler::choose`], because a rule goes by the logits.
    pub fn reads_logits(&self, tokens: &[u32]) -> bool {
        let growth = self.restrictions.end_growth.as_ref();
        self.cuts()
            || growth.is_some_and(|growth| tokens.len() > self.prompt.saturating_add(growth.after))
            || self.restrictions.forced(tokens.len(), self.most).len() > 1
    }

    fn cuts(&self) -> bool {
        self.sampling.draws() && !self.sampling.cutoffs.is_idle()
    }

    /// The token after these by the logits that were read for the choice that was made last; `None` if none of them is finite, after
    /// adjustments and mask. // (vocabulary)
    pub fn choose(&mut self, tokens: &[u32], choice: &Choice, logits: &mut [f32]) -> Option<u32> {
        self.process(tokens, logits);
        match choice {
            Choice::Likeliest => Chooser::default().choose(logits, choice),
            Choice::Drawn(draw) => self.drawer.draw(logits, draw, &self.sampling.cutoffs),
        }
    }

    /// Everything but what only matters for drawing.
    pub fn process(&self, tokens: &[u32], logits: &mut [f32]) {
        adjust(logits, &self.adjustments, self.mask());
        let forced = self.restrictions.forced(tokens.len(), self.most);
        if forced.len() > 1 {
            for &token in forced {
                if let Some(logit) = logits.get_mut(token as usize) {
                    *logit = 0.0;
                }
            }
        }
        if let Some(growth) = &self.restrictions.end_growth {
            growth.apply(logits, &self.ends, tokens.len().saturating_sub(self.prompt));
        }
    }

    /// The tokens that may be chosen, for the choice that was made last; `None` is all.
    pub fn mask(&self) -> Option<&[u32]> {
        let mask = self.mask.as_ref().map(|mask| mask.words.as_slice());
        match self.formed.as_slice() {
            [] => mask,
            formed => Some(formed),
        }
    }

    /// What changes the logits before that.
    pub fn adjustments(&self) -> &[Adjustment] {
        &self.adjustments
    }
}
