//! Matrices without rows or without columns: products are no values, or sums of nothing.

use bytes::Bytes;
use planish_cpu::{Cpu, CpuMatrix, FloatsMut, Matmul, MatmulEach, Precision, instruction_sets};
use planish_format::{FloatType, PackedMatrix, PackedShape, Packing};
use planish_ops::PlainMatrix;

fn matrices(rows: usize, cols: usize) -> Vec<CpuMatrix> {
    let plain = |float_type: FloatType| {
        CpuMatrix::Plain(PlainMatrix {
            rows,
            cols,
            float_type,
            data: Bytes::from(vec![0; rows * cols * float_type.size_bytes()]),
        })
    };
    let packed = |bits: u32, group: usize| {
        let packing = Packing::new(bits, group).unwrap();
        let shape = PackedShape::new(rows, cols, packing, FloatType::F16).unwrap();
        let zeros = |bytes: usize| Bytes::from(vec![0; bytes]);
        let (codes, scales) = (zeros(shape.code_bytes()), zeros(shape.scale_bytes()));
        CpuMatrix::Packed(PackedMatrix::new(shape, codes, scales.clone(), scales).unwrap())
    };
    vec![
        plain(FloatType::F32),
        plain(FloatType::BF16),
        packed(4, 64),
        packed(3, 32),
        packed(8, 128),
    ]
}

#[test]
fn products_of_nothing_are_nothing_or_zeros() {
    for set in instruction_sets() {
        let cpu = Cpu::with_instructions(2, Some(set)).unwrap();
        for (rows, cols) in [(0, 0), (0, 128), (5, 0), (40, 0)] {
            for matrix in matrices(rows, cols) {
                for precision in [Precision::Exact, Precision::Rounded] {
                    for m in [0, 1, 2, 33, 200] {
                        let input = vec![1.0; m * cols];
                        let mut output = vec![f32::NAN; m * rows];
                        cpu.matmul(Matmul {
                            weights: &[&matrix, &matrix],
                            input: &input,
                            m,
                            outputs: &mut [&mut output, &mut vec![f32::NAN; m * rows]],
                            precision,
                        });
                        assert!(output.iter().all(|value| *value == 0.0), "{set} {rows} x {cols} m {m}");
                    }
                    let mut output = vec![f32::NAN; 3 * rows];
                    cpu.matmul_each(MatmulEach {
                        weights: &[&matrix; 3],
                        inputs: &vec![1.0; 3 * cols],
                        outputs: &mut output,
                        precision,
                    });
                    assert!(output.iter().all(|value| *value == 0.0), "{set} {rows} x {cols} each");
                }
                if rows > 0 {
                    cpu.rows(&matrix, &[0, rows as u32 - 1], FloatsMut::F32(&mut []));
                }
            }
        }
    }
}
