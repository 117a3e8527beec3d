# Functions that know nothing of images; ./lib.tests.nix says what they do.
let
  inherit (builtins)
    elemAt
    foldl'
    genList
    head
    sort
    tail
    ;

  foldr =
    combine: start: list:
    if list == [ ] then start else combine (head list) (foldr combine start (tail list));
in
{
  inherit foldr;

  # Every choice of some of a list, in its order; none first.
  choices = foldr (item: rest: rest ++ map (chosen: [ item ] ++ chosen) rest) [ [ ] ];

  # Entries, each with a `size` and a `name`, in `count` bins of like size: the next largest goes to the bin that is
  # smallest so far.
  spread =
    count: entries:
    let
      empty = genList (index: {
        inherit index;
        size = 0;
        entries = [ ];
      }) count;
      smallest = bins: foldl' (a: b: if b.size < a.size then b else a) (elemAt bins 0) bins;
      put =
        bins: entry:
        let
          chosen = (smallest bins).index;
        in
        map (
          bin:
          if bin.index == chosen then
            bin
            // {
              size = bin.size + entry.size;
              entries = bin.entries ++ [ entry ];
            }
          else
            bin
        ) bins;
      larger = a: b: if a.size == b.size then a.name < b.name else a.size > b.size;
    in
    foldl' put empty (sort larger entries);

  # The names of cases of a file like ./lib.tests.nix that do not hold.
  failing =
    cases: builtins.filter (name: cases.${name}.is != cases.${name}.should) (builtins.attrNames cases);
}
