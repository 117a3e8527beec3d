# What `nix run` offers; each program is a file of this repository that the host's python runs.
{ }:
let
  app = module: {
    type = "app";
    program = "${../python}/hearmeman_build/apps/${module}";
  };
in
{
  inspect = app "inspect";
  push = app "push";
}
