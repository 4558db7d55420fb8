//! ONNX files: what is written is read again, and every form of tensor data is understood.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

use bitnet_core::bytes::ByteView;
use bitnet_formats::{
    FormatError, OnnxAttribute, OnnxDim, OnnxFile, OnnxNode, OnnxPlan, OnnxValueInfo, StoredType, TensorPlan,
    create_onnx, read_onnx,
};

/// Protobuf by hand.
#[derive(Default, Clone)]
struct Proto(Vec<u8>);

impl Proto {
    fn varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    fn int(self, number: u64, value: u64) -> Self {
        self.varint(number << 3).varint(value)
    }

    fn bytes(self, number: u64, bytes: &[u8]) -> Self {
        let mut out = self.varint(number << 3 | 2).varint(bytes.len() as u64);
        out.0.extend_from_slice(bytes);
        out
    }

    fn fixed(self, number: u64, value: f32) -> Self {
        let mut out = self.varint(number << 3 | 5);
        out.0.extend_from_slice(&value.to_le_bytes());
        out
    }

    fn pair(self, number: u64, key: &str, value: &str) -> Self {
        self.bytes(number, &Proto::default().bytes(1, key.as_bytes()).bytes(2, value.as_bytes()).0)
    }
}

/// A tensor `t` of a type with two dimensions.
fn tensor(kind: u64, dims: [u64; 2]) -> Proto {
    Proto::default().int(1, dims[0]).int(1, dims[1]).int(2, kind).bytes(8, b"t")
}

/// A model whose graph has these fields.
fn model(graph: &Proto) -> Vec<u8> {
    Proto::default().int(1, 8).bytes(2, b"test").bytes(7, &graph.0).0
}

fn with_initializer(tensor: &Proto) -> Vec<u8> {
    model(&Proto::default().bytes(5, &tensor.0))
}

fn read(bytes: &[u8]) -> Result<OnnxFile, FormatError> {
    let data: Vec<u8> = (0..100).collect();
    read_onnx(ByteView::from_vec(bytes.to_vec()), "m.onnx", &mut |name| {
        assert_eq!(name, "sub/data.bin", "only files inside the folder are asked for");
        Ok(ByteView::from_vec(data.clone()))
    })
}

fn bytes_of(tensor: &Proto) -> Vec<u8> {
    let file = read(&with_initializer(tensor)).unwrap();
    let tensor = file.tensor("t").unwrap();
    assert_eq!(tensor.origin.as_ref(), "m.onnx");
    tensor.data.as_slice().to_vec()
}

fn error(bytes: &[u8]) -> String {
    let message = read(bytes).unwrap_err().to_string();
    assert!(message.lines().count() == 1, "{message}");
    message
}

#[test]
fn data_in_every_form() {
    let floats = [1.0f32, -2.0, 0.5, 3.0];
    let raw: Vec<u8> = floats.iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(bytes_of(&tensor(1, [2, 2]).bytes(9, &raw)), raw);
    assert_eq!(bytes_of(&tensor(1, [2, 2]).bytes(4, &raw)), raw, "packed");
    let single = floats.iter().fold(tensor(1, [2, 2]), |t, &v| t.fixed(4, v));
    assert_eq!(bytes_of(&single), raw, "one by one");
    assert_eq!(bytes_of(&tensor(1, [2, 2]).bytes(4, &raw[..8]).bytes(4, &raw[8..])), raw, "in two pieces");

    let varints = |values: &[u64]| values.iter().fold(Proto::default(), |p, &v| p.varint(v)).0;
    let halves = [0x3c00u64, 0xc000, 0x0001, 0x7bff];
    let bits: Vec<u8> = halves.iter().flat_map(|&v| (v as u16).to_le_bytes()).collect();
    for kind in [10, 16] {
        assert_eq!(bytes_of(&tensor(kind, [2, 2]).bytes(5, &varints(&halves))), bits);
    }
    let single = halves.iter().fold(tensor(16, [2, 2]), |t, &v| t.int(5, v));
    assert_eq!(bytes_of(&single), bits);
    let minus_one = u64::MAX;
    assert_eq!(bytes_of(&tensor(3, [1, 2]).bytes(5, &varints(&[minus_one, 1]))), [255, 1]);
    assert_eq!(bytes_of(&tensor(7, [1, 1]).bytes(7, &varints(&[minus_one]))), [255; 8]);
    // 5 x 3 elements of two bits are four bytes, of four bits eight.
    assert_eq!(bytes_of(&tensor(26, [5, 3]).bytes(5, &varints(&[1, 2, 3, 4]))), [1, 2, 3, 4]);
    assert_eq!(bytes_of(&tensor(21, [5, 3]).bytes(9, &[9; 8])), [9; 8]);

    let external = tensor(2, [2, 3]).pair(13, "location", "sub/data.bin").pair(13, "offset", "10").int(14, 1);
    assert_eq!(bytes_of(&external), [10, 11, 12, 13, 14, 15]);
    assert_eq!(bytes_of(&external.clone().pair(13, "length", "6").pair(13, "checksum", "x")).len(), 6);
}

#[test]
fn tensors_that_contradict_themselves() {
    let say = |tensor: &Proto| error(&with_initializer(tensor));
    assert!(say(&tensor(1, [2, 2]).bytes(9, &[0; 15])).contains("takes 16 bytes, but 15"));
    assert!(say(&tensor(1, [2, 2]).bytes(4, &[0; 12])).contains("take 4 numbers, but 3"));
    assert!(say(&tensor(10, [2, 2]).bytes(5, &[0; 3])).contains("take 4 numbers, but 3"));
    assert!(say(&tensor(10, [2, 2]).bytes(5, &[0, 0, 0, 0x80])).contains("\"t\""));
    assert!(say(&tensor(1, [2, 2])).contains("no data"));
    assert!(say(&tensor(1, [u64::MAX, 2]).bytes(9, &[])).contains("too large"));
    assert!(say(&tensor(8, [1, 1])).contains("type string"));
    assert!(say(&tensor(99, [1, 1])).contains("data type 99"));
    let outside = |path: &str| say(&tensor(2, [1, 1]).pair(13, "location", path).int(14, 1));
    for path in ["../x", "/etc/passwd", "a/../../b", "", "C:\\x"] {
        assert!(outside(path).contains("path"), "{path}");
    }
    let external = tensor(2, [10, 10]).pair(13, "location", "sub/data.bin").int(14, 1);
    assert!(say(&external.clone().pair(13, "offset", "1")).contains("1 bytes are missing"));
    assert!(say(&external.clone().pair(13, "offset", "-1")).contains("offset"));
    assert!(say(&external.clone().pair(13, "length", "99")).contains("length is 99"));
    assert!(say(&external.pair(13, "offset", "18446744073709551615")).contains("data.bin"));
}

#[test]
fn small_files_do_not_make_large_models() {
    // Two bytes a node; a varint of one byte becomes eight.
    let nodes = [0x0a, 0].repeat(200_000);
    assert!(error(&model(&Proto(nodes))).contains("twice the memory"));
    let count = 4_000_000;
    let numbers = tensor(7, [count, 1]).bytes(7, &vec![1; count as usize]);
    assert!(error(&with_initializer(&numbers)).contains("twice the memory"));
    assert!(error(&with_initializer(&tensor(5, [1 << 40, 1]).bytes(5, &[1]))).contains("numbers"));
}

#[test]
fn graphs_that_mean_nothing() {
    assert!(error(&Proto::default().int(1, 8).bytes(2, b"x").0).contains("no graph"));
    let node = |output: &str| Proto::default().bytes(2, output.as_bytes()).bytes(4, b"Add").0;
    let twice = Proto::default().bytes(1, &node("a")).bytes(1, &node("a"));
    assert!(error(&model(&twice)).contains("\"a\" (Add)"));
    let initial = Proto::default().bytes(1, &node("t")).bytes(5, &tensor(2, [1, 1]).bytes(9, &[1]).0);
    assert!(error(&model(&initial)).contains("\"t\" (Add)"));
    let sparse = Proto::default().bytes(15, &[]);
    assert!(error(&model(&sparse)).contains("sparse"));
    // Nodes hold graphs (If, Loop) however deep; they are passed over, not entered.
    let deep = (0..5000).fold(Proto::default(), |inner, _| {
        let attribute = Proto::default().bytes(1, b"body").bytes(6, &inner.0);
        Proto::default().bytes(1, &Proto::default().bytes(4, b"Loop").bytes(5, &attribute.0).0)
    });
    let file = read(&model(&deep)).unwrap();
    assert_eq!(file.nodes[0].attribute("body"), Some(&OnnxAttribute::Other));
}

fn plan(external_from: Option<u64>) -> OnnxPlan {
    let value = |name: &str, stored| OnnxValueInfo {
        name: name.to_owned(),
        stored,
        dims: vec![OnnxDim::Named("batch".to_owned()), OnnxDim::Fixed(2)],
    };
    OnnxPlan {
        name: "g".to_owned(),
        ir_version: 8,
        opsets: vec![(String::new(), 18), ("com.microsoft".to_owned(), 1)],
        metadata: vec![("a".to_owned(), "b".to_owned())],
        nodes: vec![
            OnnxNode::new("MatMul", &["x", "w"], &["y"])
                .with("i", OnnxAttribute::Int(-3))
                .with("f", OnnxAttribute::Float(0.25))
                .with("s", OnnxAttribute::Text("text".to_owned()))
                .with("is", OnnxAttribute::Ints(vec![1, -1]))
                .with("fs", OnnxAttribute::Floats(vec![1.5])),
        ],
        inputs: vec![value("x", StoredType::F32)],
        outputs: vec![value("y", StoredType::F32)],
        tensors: vec![
            TensorPlan::new("w", StoredType::BF16, [3, 2]),
            TensorPlan::new("empty", StoredType::I64, [0]),
            TensorPlan::new("bits", StoredType::I2, [7]),
        ],
        external_from,
    }
}

fn write(path: &Path, plan: &OnnxPlan) {
    let mut writer = create_onnx(path, plan).unwrap();
    writer.begin("w").unwrap();
    writer.append(&[1, 2, 3, 4, 5]).unwrap();
    writer.append(&[6, 7, 8, 9, 10, 11, 12]).unwrap();
    writer.write_tensor("empty", &[]).unwrap();
    writer.write_tensor("bits", &[0x1b, 0x02]).unwrap();
    writer.finish().unwrap();
}

#[test]
fn what_is_written_is_read() {
    for external_from in [None, Some(0), Some(10)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.onnx");
        let plan = plan(external_from);
        write(&path, &plan);
        let view = ByteView::map_file(&path).unwrap();
        let file = read_onnx(view, "m.onnx", &mut |name| Ok(ByteView::map_file(&folder.path().join(name))?))
            .unwrap();
        assert_eq!((file.ir_version, file.opset(), file.producer.as_str()), (8, 18, "bitnet-rust"));
        assert_eq!(file.opsets, plan.opsets);
        assert_eq!(file.nodes, plan.nodes);
        assert_eq!((file.inputs, file.outputs), (vec!["x".to_owned()], vec!["y".to_owned()]));
        assert_eq!(file.metadata["a"], "b");
        let found: Vec<_> =
            file.tensors.iter().map(|t| (t.name.clone(), t.shape.clone(), t.stored)).collect();
        let planned: Vec<_> =
            plan.tensors.iter().map(|t| (t.name.clone(), t.shape.clone(), t.stored)).collect();
        assert_eq!(found, planned);
        let bytes = |name: &str| file.tensors.get(name).unwrap().data.as_slice().to_vec();
        assert_eq!(bytes("w"), (1..=12).collect::<Vec<u8>>());
        assert_eq!(bytes("bits"), [0x1b, 0x02]);
        let files = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, 1 + usize::from(external_from.is_some()));
    }
}

#[test]
fn an_unfinished_model_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let mut writer = create_onnx(&path, &plan(Some(0))).unwrap();
    let message = writer.begin("empty").unwrap_err().to_string();
    assert!(message.contains("\"w\" is next"), "{message}");
    drop(writer);
    let mut writer = create_onnx(&path, &plan(Some(0))).unwrap();
    writer.write_tensor("w", &[0; 12]).unwrap();
    assert!(writer.finish().is_err());
    let mut writer = create_onnx(&path, &plan(None)).unwrap();
    assert!(writer.write_tensor("w", &[0; 13]).is_err());
    drop(writer);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    let mut twice = plan(None);
    twice.tensors[1].name = "w".to_owned();
    assert!(create_onnx(&path, &twice).unwrap_err().to_string().contains("twice"));
    let mut strange = plan(None);
    strange.tensors[0].stored = StoredType::I2S;
    assert!(create_onnx(&path, &strange).unwrap_err().to_string().contains("no type i2_s"));
    let mut large = plan(None);
    large.tensors[0].shape = vec![1 << 31, 2];
    assert!(create_onnx(&path, &large).unwrap_err().to_string().contains("beside it"));
}
