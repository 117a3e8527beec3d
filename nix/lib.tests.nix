# What the functions of ./lib.nix do, case by case: `nix flake check` and the tests evaluate them.
let
  lib = import ./lib.nix;
  sized = name: size: { inherit name size; };
  names = map (bin: map (entry: entry.name) bin.entries);
in
{
  every-choice-in-the-lists-order = {
    is = lib.choices [
      "a"
      "b"
    ];
    should = [
      [ ]
      [ "b" ]
      [ "a" ]
      [
        "a"
        "b"
      ]
    ];
  };

  nothing-to-choose-from = {
    is = lib.choices [ ];
    should = [ [ ] ];
  };

  a-fold-from-the-right = {
    is = lib.foldr (item: rest: item - rest) 0 [
      5
      3
      1
    ];
    should = 3;
  };

  the-largest-first-and-then-the-emptiest-bin = {
    is = names (
      lib.spread 2 [
        (sized "small" 1)
        (sized "large" 5)
        (sized "middle" 3)
        (sized "other" 3)
      ]
    );
    should = [
      [
        "large"
        "small"
      ]
      [
        "middle"
        "other"
      ]
    ];
  };

  equal-sizes-go-by-name = {
    is = names (
      lib.spread 2 [
        (sized "b" 1)
        (sized "a" 1)
      ]
    );
    should = [
      [ "a" ]
      [ "b" ]
    ];
  };

  a-case-that-does-not-hold-is-named = {
    is = lib.failing {
      right = {
        is = 1;
        should = 1;
      };
      wrong = {
        is = 1;
        should = 2;
      };
    };
    should = [ "wrong" ];
  };
}
