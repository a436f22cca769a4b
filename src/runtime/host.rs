//! Which machine this is.

/// The board's ID, the installation's, or this boot's: the first that there is. Blocking.
pub fn id() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    chosen(
        &read("/sys/class/dmi/id/product_uuid"),
        &read("/etc/machine-id"),
        &read("/proc/sys/kernel/random/boot_id"),
    )
}

fn chosen(board: &str, machine: &str, boot: &str) -> String {
    let (board, machine) = (board.trim(), machine.trim());
    if board.len() == 36 {
        return board.to_lowercase();
    }
    if machine.len() == 32 && machine.is_ascii() {
        let part = |from: usize, to: usize| &machine[from..to];
        return [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-");
    }
    boot.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_an_id_whichever_file_is_there() {
        let machine = "3d1219c7c4c5404aaa1f6d2a48adfda4\n";
        let board = "4C4C4544-0042-3510-8054-B4C04F333333\n";
        assert_eq!(chosen(board, machine, "b"), "4c4c4544-0042-3510-8054-b4c04f333333");
        assert_eq!(chosen("", machine, "b"), "3d1219c7-c4c5-404a-aa1f-6d2a48adfda4");
        assert_eq!(chosen("", "uninitialized", "b\n"), "b");
    }
}
