//! Numbers between the core, which counts without a sign and to the size of memory, and languages that do not.

use std::fmt::Display;

use fulcrum::ErrorKind;

use crate::error::Result;

/// A count that an app gives, for the setting `option`.
pub(crate) fn count<V: Copy + Display, T: TryFrom<V>>(option: &'static str, value: V) -> Result<T> {
    let negative = || ErrorKind::InvalidOption { option, reason: format!("{value} must be 0 or more") };
    T::try_from(value).map_err(|_| fulcrum::Error::from(negative()).into())
}

/// As [`count`], of a setting that may be left out.
pub(crate) fn optional<V: Copy + Display, T: TryFrom<V>>(option: &'static str, value: Option<V>) -> Result<Option<T>> {
    value.map(|value| count(option, value)).transpose()
}

/// A figure that an app gets. No figure is near the limit; one beyond it would be shown as the limit.
pub(crate) fn figure(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// A figure of which there are never many.
pub(crate) fn small(value: impl TryInto<i32>) -> i32 {
    value.try_into().unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::NativeError;

    #[test]
    fn a_negative_count_names_its_setting() {
        assert_eq!(count::<_, usize>("threads", 3).unwrap(), 3);
        assert!(optional::<i32, usize>("threads", None).unwrap().is_none());
        match count::<_, usize>("threads", -1) {
            Err(NativeError::InvalidOption { option, detail, .. }) => {
                assert_eq!((option.as_str(), detail.as_str()), ("threads", "threads: -1 must be 0 or more"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_figure_never_wraps() {
        assert_eq!((figure(7_u64), figure(u64::MAX)), (7, i64::MAX));
        assert_eq!((small(7_usize), small(usize::MAX)), (7, i32::MAX));
    }
}
