//! The table: medians of the rounds, and ratios to the bare backend and to the
//! minimal proxy.

use std::time::Duration;

use crate::{load::Sample, system::Memory};

/// One measurement.
pub struct Row {
    pub case: &'static str,
    pub connections: usize,
    pub target: &'static str,
    pub sample: Sample,
    pub cpu: Duration,
}

impl Row {
    fn rate(&self) -> f64 {
        self.sample.requests as f64 / self.sample.elapsed.as_secs_f64()
    }

    fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.sample.all_requests as f64
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Prints everything, on stdout.
pub fn print(rows: &[Row], memory: &[Memory], json: bool) {
    let mut lines = Vec::new();
    let mut seen = Vec::new();
    for row in rows {
        let key = (row.case, row.connections, row.target);
        if seen.contains(&key) {
            continue;
        }
        seen.push(key);
        let of = |target: &str, figure: fn(&Row) -> f64| {
            let same = rows
                .iter()
                .filter(|r| (r.case, r.connections, r.target) == (row.case, row.connections, target));
            median(same.map(figure).collect())
        };
        let (cpu, p50) = (of(row.target, Row::cpu_us), of(row.target, |r| r.sample.p50.as_secs_f64() * 1e6));
        lines.push(serde_json::json!({
            "case": row.case, "connections": row.connections, "target": row.target,
            "requests_per_second": of(row.target, Row::rate).round(),
            "p50_us": p50.round(),
            "p99_us": of(row.target, |r| r.sample.p99.as_secs_f64() * 1e6).round(),
            "cpu_us": (cpu * 10.0).round() / 10.0,
            "cpu_to_backend": ratio(cpu, of("backend", Row::cpu_us)),
            "cpu_to_proxy": ratio(cpu, of("minimal proxy", Row::cpu_us)),
            "p50_to_proxy": ratio(p50, of("minimal proxy", |r| r.sample.p50.as_secs_f64() * 1e6)),
        }));
    }
    let memory: Vec<_> = memory
        .iter()
        .map(|m| {
            serde_json::json!({
                "target": m.target, "rss_mib_after": m.rss_kib / 1024,
                "start_ms": m.start.map(|s| s.as_secs_f64() * 1e3),
            })
        })
        .collect();
    if json {
        println!("{}", serde_json::json!({"rows": lines, "processes": memory}));
        return;
    }
    println!(
        "{:<30} {:>4} {:<14} {:>9} {:>8} {:>8} {:>8} {:>9} {:>8} {:>8}",
        "case", "C", "target", "req/s", "p50 µs", "p99 µs", "CPU µs", "×backend", "×proxy", "p50×prx"
    );
    for line in &lines {
        println!(
            "{:<30} {:>4} {:<14} {:>9} {:>8} {:>8} {:>8} {:>9} {:>8} {:>8}",
            text(line, "case"),
            text(line, "connections"),
            text(line, "target"),
            text(line, "requests_per_second"),
            text(line, "p50_us"),
            text(line, "p99_us"),
            text(line, "cpu_us"),
            text(line, "cpu_to_backend"),
            text(line, "cpu_to_proxy"),
            text(line, "p50_to_proxy"),
        );
    }
    for process in &memory {
        println!(
            "{}: {} MiB resident after the load, start-up {} ms",
            text(process, "target"),
            text(process, "rss_mib_after"),
            text(process, "start_ms")
        );
    }
}

fn ratio(of: f64, to: f64) -> f64 {
    if to > 0.0 { (of / to * 100.0).round() / 100.0 } else { 0.0 }
}

fn text(line: &serde_json::Value, key: &str) -> String {
    match &line[key] {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => "–".to_owned(),
        other => other.to_string(),
    }
}
