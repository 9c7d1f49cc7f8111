//! What operations cost at least.

use planish_cpu::{Cpu, CpuMatrix, CpuOps, Precision};
use planish_format::FloatType;
use planish_ops::*;

use crate::common::{places, span};

fn ops() -> CpuOps {
    CpuOps::new(
        Cpu::with_instructions(1, Some("scalar")).expect("runs everywhere"),
        Precision::Rounded,
    )
}

#[test]
fn linear_layers_read_their_weights_once() -> Result<(), Box<dyn std::error::Error>> {
    let ops = ops();
    let weight = CpuMatrix::Plain(PlainMatrix {
        rows: 3,
        cols: 8,
        float_type: FloatType::F16,
        data: vec![0; 48].into(),
    });
    let (input, mut output) = (ops.tensor(5, 8)?, ops.tensor(5, 3)?);
    let problem: Linear<'_, '_, CpuOps> = Linear {
        rows: 5,
        input: &input,
        weights: &[&weight],
        biases: &[None],
        outputs: &mut [&mut output],
    };
    let expected = Work {
        bytes: 48,
        operations: 2 * 5 * 3 * 8,
    };
    assert_eq!(problem.work(), expected);
    Ok(())
}

#[test]
fn attention_reads_what_its_rows_see() -> Result<(), Box<dyn std::error::Error>> {
    let ops = ops();
    let key_values = ops.key_values(KeyValueSizes {
        heads: 2,
        head_dim: 8,
        value_dim: 4,
        window: None,
    })?;
    let (queries, mut output) = (ops.tensor(3, 32)?, ops.tensor(3, 16)?);
    let spans = span(3, 10);
    let mut work = |window| {
        let problem: Attention<'_, CpuOps> = Attention {
            places: places(&spans),
            queries: &queries,
            heads: 4,
            scale: 1.0,
            temperature_tuning: None,
            window,
            softcap: None,
            alibi: None,
            sinks: None,
            key_values: &key_values,
            output: &mut output,
        };
        problem.work()
    };
    let position_bytes = 2 * (8 + 4) * 2; // f16
    let expected = |positions: u64, pairs: u64| Work {
        bytes: positions * position_bytes,
        operations: 2 * pairs * 4 * (8 + 4),
    };
    assert_eq!(work(None), expected(13, 11 + 12 + 13));
    assert_eq!(work(Some(5)), expected(5 + 2, 3 * 5));
    Ok(())
}
