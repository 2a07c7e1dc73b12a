//! The name of this host, for people who want to know who wrote something; and what tells it from others.

/// From the kernel; `unknown` if it cannot be read.
pub fn name() -> String {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let text = read("/proc/sys/kernel/hostname").or_else(|| read("/etc/hostname")).unwrap_or_default();
    let name: String = text.trim().chars().filter(|c| !c.is_control()).take(255).collect();
    if name.is_empty() { "unknown".to_string() } else { name }
}

/// What distinguishes hosts of the same name; empty if it cannot be read.
/// <https://www.freedesktop.org/software/systemd/man/latest/machine-id.html>
pub fn machine_id() -> String {
    std::fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_string()
}
