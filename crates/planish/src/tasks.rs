//! Multiple-choice tasks: which of several endings does a model hold for likeliest?
//!
//! A file has one JSON object a line, in one of three forms:
//!
//! | | |
//! |---|---|
//! | plain | `{"context": "..", "choices": ["..", ..], "answer": 1}`: the index of the right one; `"question": ".."` in place of a context asks `Question: ..\nAnswer:` |
//! | as HellaSwag has them | `{"ctx": "..", "endings": ["..", ..], "label": "1"}` |
//! | as ARC has them | `{"question": "..", "choices": {"text": ["..", ..], "label": ["A", ..]}, "answerKey": "B"}` |
//!
//! A choice is scored as lm-evaluation-harness does it: the sum of the log-probabilities of the tokens that the choice adds to the
//! context, a blank between the two; normalised, divided by the choice's characters.

use planish_model::{Chunk, Input, Want};
use serde_json::{Map, Value};

use crate::causal_lm::read;
use crate::evaluate::log_sum_exp;
use crate::{AutoTokenizer, CausalLM, Error, Interval};

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// What comes before every choice.
    pub context: String,
    /// Of which one is right.
    pub choices: Vec<String>,
    /// The index of the right one.
    pub answer: usize,
}

impl Task {
    /// Reads a file of JSON lines.
    ///
    /// # Errors
    /// [`Error::Task`] names the line, what was expected and what was found; a file without a question.
    pub fn read_lines(text: &str) -> Result<Vec<Task>, Error> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let tasks = lines.map(|(index, line)| {
            let wrong = |what: String| Error::Task { line: index + 1, what };
            let value: Value = serde_json::from_str(line).map_err(|error| wrong(format!("it is not JSON: {error}")))?;
            let fields = value
                .as_object()
                .ok_or_else(|| wrong("expected an object".to_owned()))?;
            Task::of(fields).map_err(wrong)
        });
        let tasks: Vec<Task> = tasks.collect::<Result<_, Error>>()?;
        match tasks.is_empty() {
            true => Err(Error::Task {
                line: 1,
                what: "expected a question, found the end of the file".to_owned(),
            }),
            false => Ok(tasks),
        }
    }

    fn of(fields: &Map<String, Value>) -> Result<Task, String> {
        let text = |key: &str| fields.get(key).and_then(Value::as_str).map(str::to_owned);
        let question = || text("question").map(|question| format!("Question: {question}\nAnswer:"));
        let context = text("context").or_else(|| text("ctx")).or_else(question);
        let context = context.ok_or("expected a string `context`, `ctx` or `question`")?;
        let choices = fields.get("choices").or_else(|| fields.get("endings"));
        let choices = choices.ok_or("expected `choices` or `endings`")?;
        let strings = |value: &Value| -> Option<Vec<String>> {
            let strings = value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned));
            strings.collect()
        };
        let texts = strings(choices).or_else(|| strings(choices.get("text")?));
        let choices_texts = texts.ok_or_else(|| format!("the choices are {choices}, expected an array of strings"))?;
        if choices_texts.len() < 2 || choices_texts.iter().any(|choice| choice.trim().is_empty()) {
            return Err(format!(
                "the choices are {choices}, expected at least two, none of them blank"
            ));
        }
        let answer = ["answer", "label", "answerKey"].iter().find_map(|key| fields.get(*key));
        let answer = answer.ok_or("expected `answer`, `label` or `answerKey`")?;
        let labels = choices.get("label").and_then(strings);
        let index = match (answer, &labels) {
            (Value::String(key), Some(labels)) => labels.iter().position(|label| label == key),
            (Value::String(number), None) => number.trim().parse().ok(),
            (number, _) => number.as_u64().and_then(|index| usize::try_from(index).ok()),
        };
        let count = choices_texts.len();
        let index = index.filter(|&index| index < count);
        let index = index.ok_or_else(|| format!("the answer is {answer}, expected one of {count} choices"))?;
        Ok(Task {
            context,
            choices: choices_texts,
            answer: index,
        })
    }

    /// The tokens of context and choice, and the index of the first that belongs to the choice: trailing blanks of the context go to
    /// it, and the two are tokenized together.
    fn tokens(&self, tokenizer: &AutoTokenizer, choice: &str) -> Result<(Vec<u32>, usize), Error> {
        let context = self.context.trim_end();
        let blanks = &self.context[context.len()..];
        let blank = if blanks.is_empty() && !choice.starts_with(char::is_whitespace) {
            " "
        } else {
            blanks
        };
        let whole = tokenizer.encode(&format!("{context}{blank}{choice}"))?;
        let first = tokenizer.encode(context)?.len();
        Ok((whole, first))
    }
}

/// How one question was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// Of each choice.
    pub log_likelihoods: Vec<f64>,
    /// Whether the likeliest choice is the right one.
    pub right: bool,
    /// Whether it is with log-likelihoods divided by the choices' characters.
    pub right_normalized: bool,
}

/// How a model answered all questions.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskScores {
    /// In the order of the questions.
    pub answers: Vec<Answered>,
}

impl TaskScores {
    /// The share that was right.
    pub fn accuracy(&self) -> Share {
        Share::of(self.answers.iter().map(|answer| answer.right))
    }

    /// The share that was right with log-likelihoods divided by characters.
    pub fn normalized_accuracy(&self) -> Share {
        Share::of(self.answers.iter().map(|answer| answer.right_normalized))
    }

    /// The share of questions in which another model held the same choice for likeliest.
    pub fn agreement(&self, other: &TaskScores) -> Share {
        let both = self.answers.iter().zip(&other.answers);
        Share::of(both.map(|(one, other)| likeliest(&one.log_likelihoods) == likeliest(&other.log_likelihoods)))
    }
}

/// A share of questions, with the bounds that hold the true one 19 times of 20 (Wilson's).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Of all questions.
    pub value: f64,
    /// Its bounds.
    pub interval: Interval,
}

impl Share {
    fn of(hits: impl Iterator<Item = bool>) -> Share {
        let (mut hit, mut all) = (0u32, 0u32);
        for right in hits {
            all += 1;
            hit += u32::from(right);
        }
        let (share, count) = (f64::from(hit) / f64::from(all), f64::from(all));
        let z = crate::scores::TO_EACH_SIDE;
        let scale = 1.0 + z * z / count;
        let center = (share + z * z / (2.0 * count)) / scale;
        let reach = z / scale * (share * (1.0 - share) / count + z * z / (4.0 * count * count)).sqrt();
        Share {
            value: share,
            interval: Interval {
                low: (center - reach).max(0.0),
                high: (center + reach).min(1.0),
            },
        }
    }
}

/// The first of the largest; `None` where a value is no number.
fn likeliest(values: &[f64]) -> Option<usize> {
    if values.iter().any(|value| value.is_nan()) {
        return None;
    }
    (0..values.len()).reduce(|best, index| if values[index] > values[best] { index } else { best })
}

impl CausalLM {
    /// The log-likelihood of each choice of a question. A context that is too long loses its beginning.
    ///
    /// # Errors
    /// A model without a tokenizer, a context without a token, a choice that the model's context cannot hold, a failing device.
    pub fn score_choices(&self, task: &Task) -> Result<Vec<f64>, Error> {
        let tokenizer = self.tokenizer()?;
        let limit = self.architecture().context;
        let mut rows = Vec::new();
        for choice in &task.choices {
            let (mut tokens, mut first) = task.tokens(tokenizer, choice)?;
            let unfit = |what: &str| Error::Choice {
                choice: choice.clone(),
                what: what.to_owned(),
            };
            if first == 0 || first >= tokens.len() {
                return Err(unfit("it or its context has no token of its own"));
            }
            let surplus = tokens.len().saturating_sub(limit);
            if surplus >= first {
                return Err(unfit(&format!("the model's context of {limit} tokens cannot hold it")));
            }
            tokens.drain(..surplus);
            first -= surplus;
            rows.push((tokens, first));
        }
        let mut model = self.lock();
        // What all have in common is computed once: up to the token whose logits foresee the first of a choice.
        let shared = rows
            .iter()
            .map(|(tokens, first)| common(tokens, &rows[0].0).min(first - 1))
            .min();
        let shared = shared.unwrap_or(0);
        let longest = rows.iter().map(|(tokens, _)| tokens.len()).max().unwrap_or(0);
        let mut prefix = model.cache(longest);
        if let Some((tokens, _)) = rows.first() {
            read(&mut model, &tokens[..shared], &mut prefix)?;
        }
        let mut found = Vec::new();
        for (tokens, first) in &rows {
            let mut cache = model.fork(&prefix)?;
            let mut sum = 0.0;
            let chunk = Chunk {
                cache: &mut cache,
                input: Input::Tokens(&tokens[shared..tokens.len() - 1]),
                want: Want::AllLogits,
            };
            model.run(&mut [chunk], &mut |row| {
                let next = shared + row.token + 1;
                if next >= *first {
                    sum += f64::from(row.logits[tokens[next] as usize]) - log_sum_exp(row.logits);
                }
            })?;
            found.push(sum);
        }
        Ok(found)
    }

    /// Answers all questions; `on_progress` is told how many are done.
    ///
    /// # Errors
    /// As [`CausalLM::score_choices`].
    pub fn answer_tasks(&self, tasks: &[Task], on_progress: &mut dyn FnMut(usize)) -> Result<TaskScores, Error> {
        let mut answers = Vec::new();
        for task in tasks {
            let log_likelihoods = self.score_choices(task)?;
            let characters = task.choices.iter().map(|choice| choice.chars().count() as f64);
            let normalized: Vec<f64> = log_likelihoods
                .iter()
                .zip(characters)
                .map(|(sum, count)| sum / count)
                .collect();
            answers.push(Answered {
                right: likeliest(&log_likelihoods) == Some(task.answer),
                right_normalized: likeliest(&normalized) == Some(task.answer),
                log_likelihoods,
            });
            on_progress(answers.len());
        }
        Ok(TaskScores { answers })
    }
}

/// Tokens that two begin with alike.
fn common(left: &[u32], right: &[u32]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}
