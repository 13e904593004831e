//! The machine that it runs on.

use serde::Serialize;

/// What the figures are of.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    os: String,
    arch: &'static str,
    cores: usize,
    cpu: Option<String>,
    memory_kb: Option<u64>,
}

impl Machine {
    pub(super) fn look() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.trim().strip_prefix(':'))
                .map(|value| value.trim().to_owned())
        };
        let release = read("/proc/sys/kernel/osrelease");
        let pretty = read("/etc/os-release").lines().find_map(|line| {
            line.strip_prefix("PRETTY_NAME=").map(|name| name.trim_matches('"').to_owned())
        });
        let os = [
            Some(pretty.unwrap_or_else(|| std::env::consts::OS.to_owned())),
            Some(release.trim().to_owned()).filter(|release| !release.is_empty()),
        ];
        Self {
            os: os.into_iter().flatten().collect::<Vec<_>>().join(", "),
            arch: std::env::consts::ARCH,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            memory_kb: field(&read("/proc/meminfo"), "MemTotal")
                .and_then(|value| value.split_whitespace().next()?.parse().ok()),
        }
    }

    /// In one line.
    pub(super) fn line(&self) -> String {
        let memory =
            self.memory_kb.map(|kb| format!(", {:.1} GiB", kb as f64 / f64::from(1024 * 1024)));
        let cpu = self.cpu.as_ref().map(|cpu| format!(" ({cpu})"));
        let (cpu, memory) = (cpu.unwrap_or_default(), memory.unwrap_or_default());
        format!("{} cores{cpu}{memory}, {}", self.cores, self.os)
    }
}

/// How many processes wanted to run, over the last one, five and fifteen minutes; none where the machine does not say.
pub(super) fn load_average() -> Option<[f64; 3]> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let mut numbers = text.split_whitespace().map_while(|word| word.parse().ok());
    Some([numbers.next()?, numbers.next()?, numbers.next()?])
}
