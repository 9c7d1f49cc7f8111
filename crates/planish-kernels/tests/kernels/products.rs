//! Every way to compute a product, swept over inputs, rows, columns, widths, groups and types: each within a bound of f64, and the
//! rows of a batch as the same rows alone. Small shapes under emulation; all of them on a GPU, unless `PLANISH_TEST_SWEEP` is
//! `small` (for tools that make everything slow). `PLANISH_TEST_VARIANTS` names the only ways that are tried.

use std::collections::HashMap;
use std::env;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use planish_format::FloatType;
use planish_kernels::launch::{
    Features, Launch, PRODUCT_VARIANTS, Product, ProductBuffer, ProductPlan, STACK_VARIANTS, StackVariant,
};

use crate::data::{Random, TYPES, from_bytes, poison, round_to, to_bytes};
use crate::device::{self, Buffer, Device, Watch};
use crate::matvec::TestWeight;

mod sweep;

use sweep::{Case, cases, part, sweep};

/// Beyond so many inputs and rows only some rows of the weight are compared: the first and last ones, and one in so many between.
const MOST_COMPARED: usize = 17;
const FIRST_AND_LAST: usize = 64;
const EVERY: usize = 64;

/// A row of either table.
#[derive(Clone, Copy)]
struct Variant {
    name: &'static str,
    row: Row,
}

#[derive(Clone, Copy)]
enum Row {
    Product(fn(&Product, &Features) -> Option<ProductPlan>),
    Stack(&'static StackVariant),
}

impl Variant {
    /// `None` where it cannot compute the product on this device.
    fn plan(&self, product: &Product) -> Option<ProductPlan> {
        match self.row {
            Row::Product(plan) => plan(product, &device::features()),
            Row::Stack(variant) => variant.plan(product, &device::features()),
        }
    }
}

/// The rows of both tables, of those that were named.
fn variants() -> impl Iterator<Item = Variant> {
    let named = env::var("PLANISH_TEST_VARIANTS").ok();
    // Those for plain weights alone have tests of their own.
    let packed = PRODUCT_VARIANTS.iter().filter(|variant| variant.packed);
    let products = packed.map(|variant| Variant {
        name: variant.name,
        row: Row::Product(variant.plan),
    });
    let stacks = STACK_VARIANTS.iter().map(|variant| Variant {
        name: variant.name,
        row: Row::Stack(variant),
    });
    products.chain(stacks).filter(move |variant| {
        let mut names = named.iter().flat_map(|named| named.split(','));
        named.is_none() || names.any(|name| name == variant.name)
    })
}

/// The variant that rounds weights to f16 before it multiplies, and how far off its sums may be for it: as far as those of f16.
const OF_ROUNDED_WEIGHTS: (&str, f64) = ("warpgroup_matmul", 3e-4);

/// Half a unit in the last place of a value.
fn half_unit(value: f64, float_type: FloatType) -> f64 {
    match float_type {
        FloatType::F32 => 0.0,
        FloatType::F16 => 0.5f64.powi(11) * value.abs(),
        FloatType::BF16 => 0.5f64.powi(8) * value.abs(),
    }
}

/// A weight on the device with inputs and what comes of them.
struct Setting<'a> {
    device: &'a Device,
    case: Case,
    weight: TestWeight,
    input: Vec<f32>,    // (most inputs, cols)
    added: Vec<f32>,    // (rows)
    expected: Vec<f64>, // (most inputs, rows); NaN is not compared
    typical: f64,       // root mean square of an output
}

impl<'a> Setting<'a> {
    fn new(device: &'a Device, case: Case, most_inputs: usize, random: &mut Random) -> Setting<'a> {
        let (rows, cols) = (case.rows as usize, case.cols as usize);
        let product = case.product(1);
        let weight = TestWeight::new(random, product.weight, rows, cols);
        let input = random.values(most_inputs * cols, product.value);
        let added = random.values(rows, FloatType::F32);
        let bias = product.added.then_some(&added[..]);
        let expected = reference(&input, &weight.values, bias, cols);
        let squares = |values: &[f32]| values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>();
        let mean = squares(&weight.values) / rows as f64 * squares(&input) / most_inputs as f64 / cols as f64;
        Setting {
            device,
            case,
            weight,
            input,
            added,
            expected,
            typical: mean.sqrt(),
        }
    }

    /// Runs a plan over some rows of the input. // (inputs, rows) as bytes
    fn run(&self, plan: &ProductPlan, weight: &[Buffer], first: usize, inputs: usize) -> Vec<u8> {
        let (rows, cols) = (self.case.rows as usize, self.case.cols as usize);
        let device = self.device;
        let part = &self.input[first * cols..(first + inputs) * cols];
        let input = device.place(&to_bytes(part, self.case.float_type));
        let added = device.place(&to_bytes(&self.added, FloatType::F32));
        let output = device.place(&poison(inputs * rows, self.case.output));
        let nothing = device.place(&[0; 16]);
        let arranged = device.place(&vec![0xff; plan.arranged_bytes.max(16)]);
        let partial = device.place(&vec![0xff; plan.partial_bytes.max(16)]);
        for step in &plan.steps {
            let buffers = step.buffers.iter().map(|buffer| match *buffer {
                ProductBuffer::Codes => &weight[0],
                ProductBuffer::Scales => &weight[1],
                ProductBuffer::Biases => &weight[2],
                ProductBuffer::Input => &input,
                ProductBuffer::Arranged => &arranged,
                ProductBuffer::Partial => &partial,
                ProductBuffer::Added => &added,
                ProductBuffer::Nothing => &nothing,
                ProductBuffer::Output => &output,
            });
            device.run_placed(&step.launch, &buffers.collect::<Vec<_>>());
        }
        device.read(&output)
    }

    /// The weight as the plan reads it.
    fn place(&self, plan: &ProductPlan) -> Vec<Buffer> {
        let stored: Vec<Buffer> = self
            .weight
            .buffers
            .iter()
            .map(|bytes| self.device.place(bytes))
            .collect();
        let Some(repack) = &plan.repack else { return stored };
        let made = plan
            .weight_bytes
            .iter()
            .map(|&bytes| self.device.place(&vec![0xff; bytes]));
        let made: Vec<Buffer> = made.collect();
        self.device
            .run_placed(repack, &stored.iter().chain(&made).collect::<Vec<_>>());
        made
    }

    fn check(&self, variant: Variant, inputs: &[u32], worst: &mut Worst) {
        let mut placed: Vec<(Option<Launch>, Vec<Buffer>)> = Vec::new();
        // The outputs of the kernels that ran, for as many rows as the longest batch had.
        let mut known: HashMap<String, Vec<u8>> = HashMap::new();
        for &count in inputs {
            let product = self.case.product(count);
            let Some(plan) = variant.plan(&product) else {
                continue;
            };
            let place = placed.iter().position(|(repack, _)| *repack == plan.repack);
            let place = place.unwrap_or_else(|| {
                placed.push((plan.repack.clone(), self.place(&plan)));
                placed.len() - 1
            });
            let weight = &placed[place].1;
            let count = count as usize;
            let output = self.run(&plan, weight, 0, count);
            let what = (variant.name, product);
            self.compare(&output, 0, &what, worst);

            // The last row alone.
            let row_bytes = output.len() / count;
            if let Some(alone) = variant
                .plan(&self.case.product(1))
                .filter(|alone| alone.repack == plan.repack)
            {
                let row = self.run(&alone, weight, count - 1, 1);
                self.compare(&row, count - 1, &what, worst);
                if kernels(&alone) == kernels(&plan) {
                    let same = row[..] == output[output.len() - row_bytes..];
                    worst.check(same, || format!("the last row alone differs: {what:?}"));
                }
            }
            // The same kernels with fewer rows.
            let before = known.entry(kernels(&plan)).or_default();
            let both = before.len().min(output.len());
            let same = before[..both] == output[..both];
            worst.check(same, || format!("rows differ from those of a shorter batch: {what:?}"));
            *before = output;
        }
    }

    /// Notes a failure unless rows of the output, `first` on, are within the bound; or as near as the exact sum rounded to the
    /// type, which is farther than the bound where many sums lie just above powers of two. Sums that are themselves off by d may
    /// be rounded to the other side: that moves an output by 2 d at most.
    fn compare(&self, output: &[u8], first: usize, what: &(&str, Product), worst: &mut Worst) {
        let float_type = self.case.output;
        let found = from_bytes(output, float_type);
        let expected = &self.expected[first * self.case.rows as usize..][..found.len()];
        let (mut wrong, mut ideal, mut beyond, mut right, mut count) = (0.0, 0.0, 0.0, 0.0, 0);
        for (&found, &expected) in found.iter().zip(expected) {
            if !found.is_finite() {
                return worst.fail(format!("an output of {what:?} is {found}"));
            }
            if expected.is_nan() {
                continue;
            }
            let error = (f64::from(found) - expected).abs();
            let rounding = (f64::from(round_to(expected as f32, float_type)) - expected).abs();
            wrong += error * error;
            ideal += rounding * rounding;
            beyond += (error - half_unit(expected, float_type)).max(0.0).powi(2);
            right += expected * expected;
            count += 1;
        }
        // Of few outputs all may be small by chance.
        if count < 64 {
            right = f64::max(right, f64::from(count) * self.typical.powi(2));
        }
        let [wrong, ideal, beyond] = [wrong, ideal, beyond].map(|squares| (squares / right).sqrt());
        let (name, off) = OF_ROUNDED_WEIGHTS;
        let off = if what.0 == name { off } else { 0.0 };
        if wrong > self.case.bound().max(1.02 * ideal + 2.0 * off) {
            worst.fail(format!(
                "relative error {wrong:.2e} of {what:?}, {ideal:.2e} by rounding alone"
            ));
        }
        worst.note(float_type, wrong, beyond);
    }
}

/// What was compiled for a plan, by which equal rows are equal bits.
fn kernels(plan: &ProductPlan) -> String {
    let steps = plan.steps.iter().map(|step| (&step.launch.program, step.launch.kernel));
    format!("{:?}", steps.collect::<Vec<_>>())
}

/// The formula in f64. // (inputs, rows)
fn reference(input: &[f32], weight: &[f32], bias: Option<&[f32]>, cols: usize) -> Vec<f64> {
    let (inputs, rows) = (input.len() / cols, weight.len() / cols);
    let input: Vec<f64> = input.iter().map(|&value| f64::from(value)).collect();
    let mut sums = vec![f64::NAN; inputs * rows];
    for (row, weights) in weight.chunks_exact(cols).enumerate() {
        let weights: Vec<f64> = weights.iter().map(|&value| f64::from(value)).collect();
        let always = row < FIRST_AND_LAST || row + FIRST_AND_LAST >= rows || row % EVERY == 0;
        let compared = if always { inputs } else { inputs.min(MOST_COMPARED) };
        for (index, input) in input.chunks_exact(cols).take(compared).enumerate() {
            sums[index * rows + row] = dot(input, &weights) + bias.map_or(0.0, |bias| f64::from(bias[row]));
        }
    }
    sums
}

/// In four sums, which the compiler keeps in vectors.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (fours_a, rest_a) = a.as_chunks::<4>();
    let (fours_b, rest_b) = b.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for (a, b) in fours_a.iter().zip(fours_b) {
        for lane in 0..4 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum::<f64>()
}

/// The largest errors, how many products there were, what was wrong.
#[derive(Default)]
struct Worst {
    products: usize,
    /// Of all, and beyond the rounding of each output.
    errors: HashMap<FloatType, [f64; 2]>,
    failures: Vec<String>,
}

impl Worst {
    fn note(&mut self, float_type: FloatType, error: f64, beyond: f64) {
        self.products += 1;
        let worst = self.errors.entry(float_type).or_default();
        *worst = [worst[0].max(error), worst[1].max(beyond)];
    }

    fn fail(&mut self, what: String) {
        self.failures.push(what);
    }

    fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(what());
        }
    }

    fn join(mut self, other: Worst) -> Worst {
        self.products += other.products;
        for (float_type, [error, beyond]) in other.errors {
            let worst = self.errors.entry(float_type).or_default();
            *worst = [worst[0].max(error), worst[1].max(beyond)];
        }
        self.failures.extend(other.failures);
        self
    }

    /// Prints the errors; panics if something was wrong.
    fn report(&self, name: &str) {
        const SHOWN: usize = 12;
        for float_type in TYPES {
            if let Some([error, beyond]) = self.errors.get(&float_type) {
                println!(
                    "{name} {float_type:?} {error:.2e} beyond rounding {beyond:.2e}, {} products",
                    self.products
                );
            }
        }
        let shown = self.failures.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>();
        assert!(
            self.failures.is_empty(),
            "{name}: {} failures:\n{}",
            self.failures.len(),
            shown.join("\n")
        );
    }
}

/// Every case, those that share kernels on one thread, on as many threads as a GPU's host has processors; the emulation is one
/// process. Results by variant.
fn check_all(watch: Watch, cases: &[Case], inputs: &[u32]) -> Vec<(&'static str, Worst)> {
    let launches = || {
        let mut launches = Vec::new();
        for case in cases {
            let products = [1].iter().chain(inputs).map(|&count| case.product(count));
            let plans = products.flat_map(|product| variants().filter_map(move |variant| variant.plan(&product)));
            for plan in plans {
                launches.extend(plan.repack);
                launches.extend(plan.steps.into_iter().map(|step| step.launch));
            }
        }
        launches
    };
    let threads = match device::chosen() {
        None => 1,
        Some(_) if part().1 > 1 => 1,
        Some(_) => thread::available_parallelism().map_or(1, usize::from),
    };
    let groups: Vec<&[Case]> = cases.chunks(sweep().rows.len()).collect();
    let next = AtomicUsize::new(0);
    let none = || {
        variants()
            .map(|variant| (variant.name, Worst::default()))
            .collect::<Vec<_>>()
    };
    let most = inputs.iter().copied().max().unwrap_or(1) as usize;
    let work = || {
        let device = Device::new(&launches(), watch);
        let mut worst = none();
        while let Some(together) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
            for case in *together {
                let mut random = Random(u64::from(case.rows * 31 + case.cols));
                let setting = Setting::new(&device, *case, most, &mut random);
                let variants = variants().zip(&mut worst);
                variants.for_each(|(variant, (_, worst))| setting.check(variant, inputs, worst));
            }
        }
        worst
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let results = workers.into_iter().map(|worker| match worker.join() {
            Ok(worst) => worst,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        results.fold(none(), |all, more| {
            let pairs = all.into_iter().zip(more);
            pairs
                .map(|((name, worst), (_, other))| (name, worst.join(other)))
                .collect()
        })
    })
}

fn check_width(bits: u32) {
    let (part, parts) = part();
    let all = cases().into_iter().filter(|case| case.packing.bits() == bits);
    let (all, together) = (all.collect::<Vec<Case>>(), sweep().rows.len());
    // The largest cases of each width are for other parts.
    let cases: Vec<Case> = all
        .chunks(together)
        .skip((part + 3 * bits as usize) % parts)
        .step_by(parts)
        .flatten()
        .copied()
        .collect();
    let results = check_all(Watch::Memory, &cases, sweep().inputs);
    // A part may hold no case for some.
    report(&results, parts > 1);
}

/// Panics if something was wrong, or where a variant had no case though it should.
fn report(results: &[(&str, Worst)], may_lack: bool) {
    for (name, worst) in results {
        worst.report(name);
        assert!(may_lack || worst.products > 0, "no case fits {name}");
    }
}

#[test]
fn products_of_2_bits_are_within_their_bounds() {
    check_width(2);
}

#[test]
fn products_of_3_bits_are_within_their_bounds() {
    check_width(3);
}

#[test]
fn products_of_4_bits_are_within_their_bounds() {
    check_width(4);
}

#[test]
fn products_of_5_bits_are_within_their_bounds() {
    check_width(5);
}

#[test]
fn products_of_6_bits_are_within_their_bounds() {
    check_width(6);
}

#[test]
fn products_of_8_bits_are_within_their_bounds() {
    check_width(8);
}

#[test]
fn products_have_no_races() {
    let is_odd = |rows| rows == 33 || rows == 129;
    let all = cases().into_iter();
    let cases: Vec<Case> = all
        .filter(|case| is_odd(case.rows) && case.packing.bits() == 4)
        .collect();
    report(&check_all(Watch::Races, &cases, &[3, 17]), false);
}
