//! Products that are not f32 in the end, or get a bias: each thread leaves its own in its scratch and writes them from there.

use std::marker::PhantomData;
use std::ops::Range;

use planish_format::FloatType;

use crate::floats::{Floats, FloatsMut};
use crate::scratch::WorkerScratch;
use crate::table::Output;

/// Where products of one weight go. // (m, rows)
pub(super) struct Narrow<'a> {
    data: *mut u8,
    float_type: FloatType,
    m: usize,
    rows: usize,
    bias: Option<Floats<'a>>, // (rows)
    output: PhantomData<&'a mut [u8]>,
}

// SAFETY: threads write through it only the rows that they were given, and nobody reads until all are done.
unsafe impl Sync for Narrow<'_> {}

impl<'a> Narrow<'a> {
    /// Panics unless `output` has m x rows values and the bias one for each row.
    pub fn new(output: FloatsMut<'a>, (m, rows): (usize, usize), bias: Option<Floats<'a>>) -> Narrow<'a> {
        assert_eq!(output.len(), m * rows, "values of an output of {m} x {rows}");
        assert!(bias.is_none_or(|bias| bias.len() == rows), "a bias of {rows} values");
        let (float_type, data) = match output {
            FloatsMut::F32(values) => (FloatType::F32, values.as_mut_ptr().cast()),
            FloatsMut::Bytes(float_type, bytes) => (float_type, bytes.as_mut_ptr()),
        };
        let output = PhantomData;
        Narrow {
            data,
            float_type,
            m,
            rows,
            bias,
            output,
        }
    }

    /// Calls `job`, which leaves the products of the given rows in the output it gets, and writes them where they belong.
    ///
    /// # Safety
    /// Rows must be given to one call.
    pub unsafe fn fill(
        &self,
        rows: Range<usize>,
        scratch: &mut WorkerScratch,
        job: impl FnOnce(Output, &mut WorkerScratch),
    ) {
        assert!(rows.start <= rows.end && rows.end <= self.rows);
        let mut buffer = std::mem::take(&mut scratch.products);
        let (tile, bias) = buffer
            .take::<f32>((self.m + 1) * rows.len())
            .split_at_mut(self.m * rows.len());
        job(Output::of_rows(tile, self.m, rows.clone()), scratch);
        if let Some(values) = self.bias {
            values.widen(rows.clone(), bias);
        }
        let size = self.float_type.size_bytes();
        for (input_row, products) in tile.chunks_exact_mut(rows.len().max(1)).enumerate() {
            if self.bias.is_some() {
                products.iter_mut().zip(&*bias).for_each(|(value, bias)| *value += bias);
            }
            let at = (input_row * self.rows + rows.start) * size;
            // SAFETY: inside of the output, whose length was checked; these rows are this call's.
            let into = unsafe { std::slice::from_raw_parts_mut(self.data.add(at), rows.len() * size) };
            self.float_type.encode(products, into);
        }
        scratch.products = buffer;
    }

    /// The sums of nothing, with the bias.
    pub fn fill_zeros(&self, scratch: &mut WorkerScratch) {
        let zeros = |output: Output, _: &mut WorkerScratch| {
            let all = (0..self.m).flat_map(|input_row| (0..self.rows).map(move |row| (input_row, row)));
            // SAFETY: all rows are given to this one call.
            all.for_each(|(input_row, row)| unsafe { *output.at(input_row, row) = 0.0 });
        };
        // SAFETY: as above.
        unsafe { self.fill(0..self.rows, scratch, zeros) };
    }
}
