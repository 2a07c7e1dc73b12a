//! The name of this host, for people who wonder who has written something.

/// As the kernel has it; where it cannot be read, `unknown`.
pub fn name() -> String {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let text = read("/proc/sys/kernel/hostname").or_else(|| read("/etc/hostname")).unwrap_or_default();
    let name: String = text.trim().chars().filter(|c| !c.is_control()).take(255).collect();
    if name.is_empty() { "unknown".to_string() } else { name }
}
