//! Norms of rows, the residual added first.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;
use planish_ops::NormKind;
use smallvec::smallvec;

use super::{File, Launch, Program, constants_of, kernel_file, value_number};

const FILE: File = kernel_file!("portable/norm", "shared/values", "shared/reduce");
const MOST_THREADS: u32 = 512;
/// Values that a thread reads at once.
const VALUES_EACH: u32 = 8;

/// `hidden += factor * residual; output = normalized(hidden) * weight + bias`. Buffers: hidden (rows, cols) and residual (rows,
/// cols) of `value`, weight (size) and bias (size) of f32, output (rows, cols) of `value`.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    /// The formula.
    pub kind: NormKind,
    /// Type of hidden, residual and output.
    pub value: FloatType,
    /// Rows to normalize.
    pub rows: u32,
    /// First of them in hidden and residual; the output begins at its row 0.
    pub first_row: u32,
    /// Columns of hidden, residual and output.
    pub cols: u32,
    /// Values normalized together; divides the columns.
    pub width: u32,
    /// Values of weight and bias, which repeat along the columns.
    pub size: u32,
    /// Factor of the residual, where there is one.
    pub residual: Option<f32>,
    /// Whether there is a weight.
    pub weight: bool,
    /// Whether there is a bias.
    pub bias: bool,
    /// Added to the mean square or the variance.
    pub epsilon: f32,
    /// The output is hidden itself, at the same rows.
    pub in_place: bool,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct NormProblem {
    cols: u32,
    width: u32,
    size: u32,
    first_row: u32,
    factor: f32,
    epsilon: f32,
}

impl Norm {
    /// The launch.
    pub fn launch(&self) -> Launch {
        let threads = self
            .width
            .div_ceil(VALUES_EACH)
            .next_power_of_two()
            .clamp(32, MOST_THREADS);
        let problem = NormProblem {
            cols: self.cols,
            width: self.width,
            size: self.size,
            first_row: self.first_row,
            factor: self.residual.unwrap_or_default(),
            epsilon: self.epsilon,
        };
        let defines = smallvec![
            ("THREADS", threads),
            ("EACH", self.width.div_ceil(VALUES_EACH * threads)),
            ("WHOLE", u32::from(self.width.is_multiple_of(VALUES_EACH))),
            ("VALUE", value_number(self.value)),
            ("LAYER", u32::from(self.kind == NormKind::Layer)),
            ("IDENTITY", u32::from(self.kind == NormKind::Identity)),
            ("RESIDUAL", u32::from(self.residual.is_some())),
            ("SCALED", u32::from(self.weight)),
            ("SHIFTED", u32::from(self.bias)),
            ("IN_PLACE", u32::from(self.in_place)),
        ];
        Launch {
            program: Program { file: FILE, defines },
            kernel: "normalize",
            threadgroups: [self.rows, self.cols / self.width, 1],
            threads,
            buffers: 5,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }
}
