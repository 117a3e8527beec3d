# ComfyUI at COMFYUI_COMMIT, the custom nodes, and the packages of our own nodes: one layer each.
{
  layer,
  plugin,
  # The flake's inputs.
  inputs,
  # The stand-in's trees, for a tier without ComfyUI.
  standin,
}:
let
  inherit (builtins)
    attrNames
    filter
    listToAttrs
    match
    substring
    ;

  # An override by a folder has no commit; its hash says which tree it was.
  revision = name: inputs.${name}.rev or "overridden-${substring 7 12 (inputs.${name}.narHash or "sha256-unknown")}";
in
{
  inherit revision;

  # ComfyUI's commit in a tier's image, or what stands in for it.
  commit = tier: if tier.comfyui == null then "stand-in" else revision tier.comfyui;

  # What boot knows of this very ComfyUI: the options that it takes.
  facts =
    tier:
    if tier.comfyui == null then
      [ ]
    else
      [
        {
          source = plugin {
            name = "comfyui-flags";
            module = "comfyui_options";
            arguments.source = "${inputs.${tier.comfyui}}";
          };
          target = "opt/hearmeman/cli-flags.json";
        }
      ];

  layers =
    tier:
    [
      (layer {
        name = if tier.comfyui == null then "comfyui-standin" else "comfyui";
        trees =
          if tier.comfyui == null then
            standin
          else
            [
              {
                source = inputs.${tier.comfyui};
                target = "opt/comfyui";
              }
            ];
      })
    ]
    ++ map (
      node:
      layer {
        name = "node-${node}";
        trees = [
          {
            source = inputs.${tier.nodes.${node}};
            target = "opt/comfyui-nodes/${node}";
          }
        ];
        links = listToAttrs (
          map (folder: {
            name = "opt/comfyui-nodes/${folder}";
            value = "/run/hearmeman/node_data/${folder}";
          }) (filter (folder: match "${node}/.*" folder != null) tier.nodeFolders)
        );
      }
    ) (attrNames tier.nodes)
    ++ map (
      package:
      let
        folder = "opt/env/${tier.comfyuiEnvironment}/lib/python3.11/site-packages/${package}";
        tree = inputs.${tier.packages.${package}};
      in
      layer {
        name = "package-${package}";
        trees = [
          {
            source = "${tree}/${package}";
            target = folder;
          }
          {
            source = "${tree}/LICENSE";
            target = "${folder}/LICENSE";
          }
        ];
      }
    ) (attrNames tier.packages);
}
