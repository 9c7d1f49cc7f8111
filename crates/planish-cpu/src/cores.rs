//! How many cores this process may use: hyper-threads of a core count once, and affinity (`taskset`) and the processor time that
//! a container is given (cgroups) are limits.

/// Physical cores that this process may use, at least one.
pub fn physical_cores() -> usize {
    // Knows affinity and cgroups, but counts hyper-threads.
    let allowed = std::thread::available_parallelism().map_or(1, |count| count.get());
    counted_cores().map_or(allowed, |cores| cores.clamp(1, allowed))
}

#[cfg(target_os = "linux")]
fn counted_cores() -> Option<usize> {
    cores_of(allowed_cpus(), |cpu, name| {
        std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/{name}")).ok()
    })
}

/// The logical processors that this thread may run on, and with it those that it starts.
#[cfg(target_os = "linux")]
fn allowed_cpus() -> Vec<usize> {
    const MOST: usize = libc::CPU_SETSIZE as usize;
    // SAFETY: a set is plain bits, for which zeros are valid; the call writes no more than its size.
    let (set, status) = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let status = libc::sched_getaffinity(0, size_of_val(&set), &mut set);
        (set, status)
    };
    // SAFETY: the numbers are below the size of the set.
    let allowed = |&cpu: &usize| status != 0 || unsafe { libc::CPU_ISSET(cpu, &set) };
    (0..MOST).filter(allowed).collect()
}

/// Different cores among logical processors; `None` if the system says nothing of any.
#[cfg(target_os = "linux")]
fn cores_of(cpus: Vec<usize>, read: impl Fn(usize, &str) -> Option<String>) -> Option<usize> {
    let core = |&cpu: &usize| Some((read(cpu, "physical_package_id")?, read(cpu, "core_id")?));
    let cores: std::collections::HashSet<_> = cpus.iter().filter_map(core).collect();
    (!cores.is_empty()).then_some(cores.len())
}

#[cfg(target_vendor = "apple")]
fn counted_cores() -> Option<usize> {
    // The performance cores where the chip has two kinds: one slow core would hold up every job.
    [c"hw.perflevel0.physicalcpu", c"hw.physicalcpu"]
        .into_iter()
        .find_map(|name| {
            let (mut value, mut size) = (0i32, size_of::<i32>());
            // SAFETY: `value` and `size` are valid for writes and `size` is the size of `value`.
            let status = unsafe {
                libc::sysctlbyname(
                    name.as_ptr(),
                    (&raw mut value).cast(),
                    &raw mut size,
                    std::ptr::null_mut(),
                    0,
                )
            };
            (status == 0 && value > 0).then_some(value as usize)
        })
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn counted_cores() -> Option<usize> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// Two packages of two cores of two threads; threads of a core are neighbours. The last processor is off.
    fn topology(cpu: usize, name: &str) -> Option<String> {
        let number = match name {
            "physical_package_id" => cpu / 4,
            "core_id" => cpu / 2 % 2,
            _ => return None,
        };
        (cpu < 7).then(|| number.to_string())
    }

    #[test]
    fn threads_of_a_core_count_once() {
        for (cpus, cores) in [
            (vec![0, 1, 2, 3, 4, 5, 6, 7], Some(4)),
            (vec![0, 1], Some(1)),
            (vec![1, 2, 5], Some(3)),
            (vec![7, 8], None),
        ] {
            assert_eq!(cores_of(cpus, topology), cores);
        }
    }

    #[test]
    fn a_thread_that_may_use_one_processor_has_one_core() {
        let inside = std::thread::spawn(|| {
            let cpu = allowed_cpus()[0];
            // SAFETY: a set is plain bits; only this thread is bound.
            let status = unsafe {
                let mut set: libc::cpu_set_t = std::mem::zeroed();
                libc::CPU_SET(cpu, &mut set);
                libc::sched_setaffinity(0, size_of_val(&set), &set)
            };
            (status, allowed_cpus() == [cpu], physical_cores())
        });
        assert_eq!(inside.join().expect("the thread ends"), (0, true, 1));
    }
}
