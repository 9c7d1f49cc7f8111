//! The measurements as tables for people.

use serde_json::Value;

pub fn print_tables(result: &Value) {
    println!(
        "{}: copy {:.0} GB/s, read {:.0} GB/s; {}",
        text(&result["device"]),
        number(&result["copy_gb_per_s"]),
        number(&result["read_gb_per_s"]),
        text(&result["values"]),
    );
    println!("     rows x cols  bits  inputs  kernel               us    GB/s  of read  TFLOP/s");
    for row in rows(&result["products"]) {
        let chosen = if row["chosen"] == true { "  chosen" } else { "" };
        println!(
            "{:>9} x {:<5} {:>5} {:>7}  {:14} {:8.1} {:7.0} {:6.0} % {:8.1}{chosen}",
            number(&row["rows"]),
            number(&row["cols"]),
            number(&row["bits"]),
            number(&row["inputs"]),
            text(&row["kernel"]),
            number(&row["us"]),
            number(&row["gb_per_s"]),
            100.0 * number(&row["of_read_speed"]),
            number(&row["tflop_per_s"]),
        );
    }
    println!("kernel              sizes                                    us  floor, us    GB/s  of read  TFLOP/s");
    for row in rows(&result["others"]) {
        println!(
            "{:19} {:34} {:8.1} {:10.1} {:7.0} {:6.0} % {:8.1}",
            text(&row["kernel"]),
            text(&row["sizes"]),
            number(&row["us"]),
            number(&row["floor_us"]),
            number(&row["gb_per_s"]),
            100.0 * number(&row["of_read_speed"]),
            number(&row["tflop_per_s"]),
        );
    }
}

fn rows(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}
