// Opens hearmeman's templates. ComfyUI's page lists a template only in the editor's format, where a node's values stand in
// the order of its widgets, which each version decides anew. So ours hold the graph in API format, by name, and are
// built here from the page's own node definitions.
import { api } from '../../scripts/api.js'
import { app } from '../../scripts/app.js'

const GAP = 48

function levels(graph) {
  const found = {}
  const level = (id, above) => {
    if (found[id] !== undefined || above.includes(id)) return found[id] ?? 0
    const before = Object.values(graph[id].inputs).filter((value) => Array.isArray(value) && graph[value[0]])
    found[id] = before.length ? 1 + Math.max(...before.map(([source]) => level(source, [...above, id]))) : 0
    return found[id]
  }
  for (const id of Object.keys(graph)) level(id, [])
  return found
}

function put(nodes, graph) {
  // A widget's callback may add widgets or inputs, so what was not there at first is tried once more.
  for (let round = 0; round < 2; round++) {
    for (const [id, { inputs }] of Object.entries(graph)) {
      for (const [name, value] of Object.entries(inputs)) {
        if (Array.isArray(value)) {
          const slot = nodes[id]?.inputs?.findIndex((input) => input.name === name) ?? -1
          if (nodes[value[0]] && slot >= 0) nodes[value[0]].connect(value[1], nodes[id], slot)
        } else {
          const widget = nodes[id]?.widgets?.find((one) => one.name === name)
          if (widget && widget.value !== value) {
            widget.value = value
            widget.callback?.(value, app.canvas, nodes[id])
          }
        }
      }
    }
  }
}

function place(nodes, graph) {
  const columns = []
  for (const [id, level] of Object.entries(levels(graph))) (columns[level] ??= []).push(nodes[id])
  let x = GAP
  for (const column of columns) {
    const present = (column ?? []).filter(Boolean)
    let y = 2 * GAP
    for (const node of present) {
      node.setSize(node.computeSize())
      node.pos = [x, y]
      y += node.size[1] + 2 * GAP
    }
    x += Math.max(0, ...present.map((node) => node.size[0])) + 2 * GAP
  }
}

// ComfyUI lists the files of a folder in the order in which its disk has them.
const listed = api.getWorkflowTemplates
api.getWorkflowTemplates = async function () {
  const found = await listed.call(this)
  for (const names of Object.values(found)) names.sort()
  return found
}

app.registerExtension({
  name: 'hearmeman.templates',

  beforeConfigureGraph(data, missing) {
    for (const { class_type } of Object.values(data?.extra?.hearmeman?.graph ?? {})) {
      if (!LiteGraph.registered_node_types[class_type]) missing.push(class_type)
    }
  },

  afterConfigureGraph() {
    const live = app.rootGraph ?? app.graph
    const graph = live.extra?.hearmeman?.graph
    if (!graph) return
    delete live.extra.hearmeman
    const nodes = {}
    for (const [id, { class_type, _meta }] of Object.entries(graph)) {
      const node = LiteGraph.createNode(class_type)
      if (!node) continue
      node.title = _meta?.title ?? node.title
      live.add(node)
      nodes[id] = node
    }
    put(nodes, graph)
    place(nodes, graph)
    requestAnimationFrame(() => app.canvas?.ds && app.extensionManager?.command?.execute?.('Comfy.Canvas.FitView'))
  }
})
