//! Lists through the values of a [`Slab`]: pushing, popping and taking out of the middle cost O(1) and no
//! allocation. A value can be in one list per kind of list.

use super::slab::{NONE, Slab};
use std::marker::PhantomData;

/// The neighbours of a value in a list.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    previous: u32,
    next: u32,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            previous: NONE,
            next: NONE,
        }
    }
}

/// A value that can be in a list of kind `K`.
pub trait Linked<K> {
    /// Its neighbours there.
    fn links(&self) -> &Links;
    /// Its neighbours there.
    fn links_mut(&mut self) -> &mut Links;
}

/// Says where a value keeps its neighbours in lists of a kind.
macro_rules! linked {
    ($value:ty, $kind:ty, $field:ident) => {
        impl $crate::lane::list::Linked<$kind> for $value {
            fn links(&self) -> &$crate::lane::list::Links {
                &self.$field
            }

            fn links_mut(&mut self) -> &mut $crate::lane::list::Links {
                &mut self.$field
            }
        }
    };
}
pub(super) use linked;

/// A list of kind `K`.
#[derive(Debug)]
pub struct List<K> {
    first: u32,
    last: u32,
    len: u32,
    kind: PhantomData<K>,
}

impl<K> Default for List<K> {
    fn default() -> Self {
        Self {
            first: NONE,
            last: NONE,
            len: 0,
            kind: PhantomData,
        }
    }
}

impl<K> List<K> {
    /// How many values it has.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first value.
    pub fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    /// Puts a value, which is in no list of this kind, at the end.
    #[inline]
    pub fn push_back<T: Linked<K>>(&mut self, slab: &mut Slab<T>, value: u32) {
        *slab[value].links_mut() = Links {
            previous: self.last,
            next: NONE,
        };
        match self.last {
            NONE => self.first = value,
            last => slab[last].links_mut().next = value,
        }
        self.last = value;
        self.len += 1;
    }

    /// Takes a value of this list out.
    #[inline]
    pub fn remove<T: Linked<K>>(&mut self, slab: &mut Slab<T>, value: u32) {
        let Links { previous, next } = *slab[value].links();
        match previous {
            NONE => self.first = next,
            previous => slab[previous].links_mut().next = next,
        }
        match next {
            NONE => self.last = previous,
            next => slab[next].links_mut().previous = previous,
        }
        self.len -= 1;
    }

    /// The values in order.
    pub fn iter<'a, T: Linked<K>>(&self, slab: &'a Slab<T>) -> impl Iterator<Item = u32> + 'a
    where
        K: 'a,
    {
        let number = |number: u32| (number != NONE).then_some(number);
        std::iter::successors(self.first(), move |value| number(slab[*value].links().next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Plain;

    impl Linked<Plain> for Links {
        fn links(&self) -> &Links {
            self
        }

        fn links_mut(&mut self) -> &mut Links {
            self
        }
    }

    #[test]
    fn values_keep_their_order_when_others_leave() {
        let (mut slab, mut list) = (Slab::default(), List::<Plain>::default());
        for _ in 0..5 {
            let value = slab.insert(Links::default());
            list.push_back(&mut slab, value);
        }
        let order = |list: &List<Plain>, slab: &Slab<Links>| list.iter(slab).collect::<Vec<_>>();
        list.remove(&mut slab, 2);
        assert_eq!(order(&list, &slab), [0, 1, 3, 4]);
        list.remove(&mut slab, 4);
        list.remove(&mut slab, 0);
        list.push_back(&mut slab, 2);
        assert_eq!((order(&list, &slab), list.len()), (vec![1, 3, 2], 3));
        while let Some(first) = list.first() {
            list.remove(&mut slab, first);
        }
        assert_eq!((list.first(), list.is_empty()), (None, true));
    }
}
