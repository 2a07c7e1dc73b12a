//! The name of this host, for people who want to know who wrote something.

/// From the kernel; `unknown` if it cannot be read.
pub fn name() -> String {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let text = read("/proc/sys/kernel/hostname").or_else(|| read("/etc/hostname")).unwrap_or_default();
    let name: String = text.trim().chars().filter(|c| !c.is_control()).take(255).collect();
    if name.is_empty() { "unknown".to_string() } else { name }
}
