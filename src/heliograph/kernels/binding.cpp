// Binds the C kernels to Python: sizes are checked here, the interpreter's lock is released meanwhile.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <new>
#include <optional>
#include <utility>
#include <vector>

#include "cascade.h"
#include "clicks.h"
#include "expansion.h"
#include "ldpc.h"
#include "product.h"
#include "sifting.h"
#include "wipe.h"
#include "words.h"

namespace nb = nanobind;

namespace {

template <typename T>
using Array = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

const uint8_t *data(const nb::bytes &from) { return reinterpret_cast<const uint8_t *>(from.c_str()); }

// Fresh bytes, to be written before anybody else sees them.
nb::bytes blank(size_t size) {
    PyObject *object = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size));
    if (!object) nb::raise_python_error();
    return nb::steal<nb::bytes>(object);
}

// Cuts bytes that nobody else holds to their first `size` ones, without a copy.
nb::bytes cut(nb::bytes &&from, size_t size) {
    PyObject *object = from.release().ptr();
    if (_PyBytes_Resize(&object, static_cast<Py_ssize_t>(size))) nb::raise_python_error();
    return nb::steal<nb::bytes>(object);
}

uint8_t *inside(nb::bytes &of) { return reinterpret_cast<uint8_t *>(PyBytes_AS_STRING(of.ptr())); }

void require(bool holds, const char *what) {
    if (!holds) throw nb::value_error(what);
}

size_t bytes(size_t bits) { return (bits + 7) / 8; }

// The same for secret bits: a resize may leave what it copied behind.
nb::bytes cut_secret(nb::bytes &&from, size_t size) {
    nb::bytes out = blank(size);
    memcpy(inside(out), inside(from), size);
    hg_wipe(inside(from), from.size());
    return out;
}

// Words of secret bits, wiped when they go.
struct Secret {
    explicit Secret(size_t size) : words(size) {}
    ~Secret() { hg_wipe(words.data(), words.size() * sizeof(uint64_t)); }
    Secret(const Secret &) = delete;
    Secret &operator=(const Secret &) = delete;
    uint64_t *data() { return words.data(); }
    std::vector<uint64_t> words;
};

class Plan {
  public:
    Plan(size_t length, unsigned first, const nb::bytes &second, unsigned third, nb::sequence shuffles,
         Array<uint64_t> keys, unsigned window, size_t few, size_t at_once, bool portable) {
        require(length >= 1 && length <= HG_FRAME_MAX, "a frame of another length");
        require(keys.size() == HG_KEYS && nb::len(shuffles) == HG_PERMUTED && second.size() == HG_SHARES,
                "keys, shuffles or levels of another number");
        const size_t count = length / HG_TILE * 64;
        hg_shuffle tables[HG_PERMUTED];
        for (size_t p = 0; p < HG_PERMUTED; p++) {
            nb::object from = shuffles[p];
            auto words = nb::cast<Array<uint32_t>>(from.attr("words"), false), outs = nb::cast<Array<uint32_t>>(from.attr("outs"), false),
                 tail = nb::cast<Array<uint32_t>>(from.attr("tail"), false);
            auto turns = nb::cast<Array<uint8_t>>(from.attr("turns"), false);
            require(words.size() == count && outs.size() == count && turns.size() == count &&
                        tail.size() == length % HG_TILE,
                    "tables of another length");
            // The arrays live in `from`, and it in `shuffles`, longer than this call: of another type they are refused, not
            // converted, since a converted copy would die here.
            tables[p] = {words.data(), outs.data(), tail.data(), turns.data()};
        }
        plan_ = hg_plan_new(length, first, data(second), third, tables, keys.data(), window, few, at_once, portable);
        require(plan_ != nullptr, "levels that are too high, or tables that are no permutations");
    }
    ~Plan() { hg_plan_free(plan_); }
    Plan(const Plan &) = delete;
    Plan &operator=(const Plan &) = delete;
    const hg_plan *get() const { return plan_; }

  private:
    hg_plan *plan_ = nullptr;
};

class Block {
  public:
    Block(const nb::bytes &bits, size_t length, const Plan &plan, const Plan &last, bool corrects) : length_(length) {
        require(length >= 1 && length <= HG_LENGTH_MAX && bits.size() == bytes(length), "bits of another length");
        nb::gil_scoped_release release;
        block_ = hg_block_new(data(bits), length, plan.get(), last.get(), corrects);
        require(block_ != nullptr, "frames that do not add up to the block");
        if (hg_block_begin(block_)) {
            hg_block_free(block_);
            throw std::bad_alloc();
        }
    }
    ~Block() { hg_block_free(block_); }
    Block(const Block &) = delete;
    Block &operator=(const Block &) = delete;

    size_t count() const { return hg_count(block_); }
    nb::bytes parities() {
        std::scoped_lock lock(mutex_);
        return nb::bytes(reinterpret_cast<const char *>(hg_parities(block_)), bytes(hg_count(block_)));
    }
    int learn(const nb::bytes &parities) {
        nb::gil_scoped_release release;
        std::scoped_lock lock(mutex_);
        require(hg_count(block_) && parities.size() == bytes(hg_count(block_)), "parities of another length");
        const int code = hg_block_learn(block_, data(parities));
        if (code == HG_NO_MEMORY) throw std::bad_alloc();
        require(code != HG_MISUSE, "the block was used out of order");
        return code;
    }
    nb::bytes bits() { return written(hg_block_bits); }
    nb::bytes pattern() { return written(hg_block_pattern); }

  private:
    nb::bytes written(void (*write)(const hg_block *, uint8_t *)) {
        nb::bytes out = blank(bytes(length_));
        nb::gil_scoped_release release;
        std::scoped_lock lock(mutex_);
        write(block_, inside(out));
        return out;
    }
    hg_block *block_ = nullptr;
    size_t length_;
    std::mutex mutex_;
};

// A code as ldpc.py builds it; checked once, so that no table can lead a kernel out of its memory.
class Ldpc {
  public:
    Ldpc(size_t z, size_t width, Array<uint32_t> starts, Array<uint32_t> columns, Array<uint32_t> shifts)
        : starts_(starts.data(), starts.data() + starts.size()),
          columns_(columns.data(), columns.data() + columns.size()),
          shifts_(shifts.data(), shifts.data() + shifts.size()) {
        require(z >= 64 && z <= 16384 && z % 64 == 0 && width >= 2 && width <= 4096, "blocks of another size");
        require(starts_.size() >= 2 && starts_.size() <= 4097 && starts_.front() == 0 &&
                    starts_.back() == columns_.size() && columns_.size() == shifts_.size(),
                "tables of another length");
        for (size_t r = 0; r + 1 < starts_.size(); r++) {
            require(starts_[r] + 2 <= starts_[r + 1] && starts_[r + 1] <= columns_.size(), "a row without two edges");
            for (size_t e = starts_[r]; e < starts_[r + 1]; e++)
                require(columns_[e] < width && shifts_[e] < z && (e == starts_[r] || columns_[e - 1] < columns_[e]),
                        "an edge out of place");
        }
        std::vector<unsigned> degrees(width);
        for (uint32_t column : columns_) require(++degrees[column] <= 64, "a column of too many edges");
        code_ = {z, width, starts_.size() - 1, starts_.data(), columns_.data(), shifts_.data()};
    }
    Ldpc(const Ldpc &) = delete;
    Ldpc &operator=(const Ldpc &) = delete;

    nb::bytes syndromes(const nb::bytes &bits, size_t first) const {
        const size_t size = code_.width * code_.z / 8, frames = bits.size() / size;
        require(frames && bits.size() % size == 0 && first < code_.rows, "bits of another length");
        const size_t out = (code_.rows - first) * code_.z / 8;
        nb::bytes result = blank(frames * out);
        nb::gil_scoped_release release;
        Secret words(size / 8), parities(out / 8);
        for (size_t f = 0; f < frames; f++) {
            hg_load_bits(words.data(), data(bits) + f * size, 8 * size);
            hg_ldpc_syndrome(&code_, first, code_.rows, words.data(), parities.data());
            hg_store_bits(inside(result) + f * out, parities.data(), 8 * out);
        }
        return result;
    }

    // Returns (patterns, the iterations of each frame; 0 where there were not enough).
    nb::tuple decode(const nb::bytes &syndromes, unsigned channel, unsigned iterations, int at_most) const {
        const size_t size = code_.rows * code_.z / 8, frames = syndromes.size() / size;
        require(frames && syndromes.size() % size == 0, "syndromes of another length");
        require(channel >= 1 && channel <= 64 && iterations <= 10000, "parameters out of range");
        const size_t out = code_.width * code_.z / 8;
        nb::bytes result = blank(frames * out);
        std::vector<int> took(frames);
        {
            nb::gil_scoped_release release;
            Secret words(size / 8), pattern(out / 8);
            for (size_t f = 0; f < frames; f++) {
                hg_load_bits(words.data(), data(syndromes) + f * size, 8 * size);
                took[f] = hg_ldpc_decode(&code_, words.data(), channel, iterations, pattern.data(), at_most);
                if (took[f] == HG_LDPC_NO_MEMORY) throw std::bad_alloc();
                hg_store_bits(inside(result) + f * out, pattern.data(), 8 * out);
            }
        }
        nb::list list;
        for (int one : took) list.append(one);
        return nb::make_tuple(result, nb::tuple(list));
    }

  private:
    std::vector<uint32_t> starts_, columns_, shifts_;
    hg_ldpc code_;
};

// Returns (key bits, their packed bytes, their intensities, test bits, their packed bytes, detections, errors).
nb::tuple sift(Array<uint8_t> own_bases, Array<uint8_t> own_bits, Array<uint8_t> peer_bases, Array<uint8_t> kinds,
               const nb::bytes &peer, size_t peer_bits, bool portable) {
    const size_t slots = own_bases.size();
    require(own_bits.size() == slots && peer_bases.size() == slots && kinds.size() == slots, "slots of another number");
    require(peer.size() == bytes(peer_bits), "test bits of another length");
    nb::bytes key = blank(bytes(slots) + 8), test = blank(bytes(slots) + 8), key_kinds = blank(slots + 8);
    uint64_t detections[HG_KINDS] = {}, errors[HG_KINDS] = {};
    size_t key_bits = 0, test_bits = 0;
    {
        nb::gil_scoped_release release;
        auto run = portable ? hg_sift_portable : hg_sift;
        key_bits = run(own_bases.data(), own_bits.data(), peer_bases.data(), kinds.data(), slots, data(peer), peer_bits,
                       inside(key), inside(key_kinds), inside(test), &test_bits, detections, errors);
    }
    auto list = [](const uint64_t *from) { return nb::make_tuple(from[0], from[1], from[2], from[3]); };
    return nb::make_tuple(key_bits, cut_secret(std::move(key), bytes(key_bits)), cut(std::move(key_kinds), key_bits), test_bits,
                          cut(std::move(test), bytes(test_bits)), list(detections), list(errors));
}

int usable(int level) {
    const int there = hg_expansion_level();
    require(there >= 1 && level >= 1, "this machine has no AES instructions");
    return level < there ? level : there;
}

// Returns (bases, intensities, bits), the last two empty for a receiver's bases, which have no thresholds.
nb::tuple expand(const nb::bytes &seed, Array<int64_t> slots, uint64_t z, std::optional<Array<uint64_t>> thresholds,
                 int level) {
    const size_t count = slots.size();
    require(seed.size() == 32, "a seed of another length");
    level = usable(level);
    nb::bytes bases = blank(count), kinds = blank(thresholds ? count : 0), bits = blank(thresholds ? count : 0);
    {
        nb::gil_scoped_release release;
        hg_expand(data(seed), slots.data(), count, z, thresholds ? thresholds->data() : nullptr,
                  thresholds ? thresholds->size() : 0, level, inside(bases), thresholds ? inside(kinds) : nullptr,
                  thresholds ? inside(bits) : nullptr);
    }
    return nb::make_tuple(bases, kinds, bits);
}

// Returns (slots as int64, notes).
nb::tuple clicks(const nb::bytes &light, const nb::bytes &bases, const nb::bytes &dice, std::array<int64_t, 3> slots,
                 std::array<double, 4> reals, std::array<uint64_t, 2> z, Array<uint64_t> thresholds,
                 Array<int64_t> patterns, Array<int64_t> eve, Array<uint8_t> eve_marks, Array<double> inverse,
                 Array<double> logarithm, size_t room, int level) {
    const size_t kinds = thresholds.size() + 1, outcomes = eve.size() / (4 * kinds);
    require(light.size() == 32 && bases.size() == 32 && dice.size() == 32, "seeds of another length");
    require(slots[0] >= 1 && slots[0] < int64_t{1} << 48 && slots[1] >= 0 && slots[1] < int64_t{1} << 52 &&
                slots[2] >= 1 && slots[2] <= int64_t{1} << 48,
            "slots out of range");
    require(reals[0] > 0 && reals[1] >= 0 && reals[2] >= 0 && reals[3] >= 0, "negative numbers");
    require(patterns.size() == 9 * kinds && eve.size() == 4 * kinds * outcomes && eve_marks.size() == eve.size() &&
                inverse.size() == HG_LOG_TABLE && logarithm.size() == HG_LOG_TABLE,
            "tables of another length");
    level = usable(level);
    const hg_optics optics = {slots[0],        slots[1],           slots[2],        reals[0],   reals[1],
                              reals[2],        reals[3],           z[0],            z[1],       thresholds.data(),
                              patterns.data(), eve.data(),         eve_marks.data(), kinds,     outcomes,
                              inverse.data(),  logarithm.data()};
    // A guess that is too small costs another run, one that is too large untouched memory.
    for (;; room *= 2) {
        require(room >= 1 && room < size_t{1} << 48, "room out of range");
        room = (room + 511) / 512 * 512 + 16;  // lanes two cache lines apart modulo a page: they share no cache set
        nb::bytes found = blank(sizeof(int64_t) * room * HG_CLICK_LANES);
        auto *place = reinterpret_cast<int64_t *>(inside(found));
        size_t counts[HG_CLICK_LANES] = {}, count = 0;
        int full = 0;
        {
            nb::gil_scoped_release release;
            full = hg_clicks(&optics, data(light), data(bases), data(dice), level, place, room, counts);
            for (size_t one : counts) count += one;
        }
        if (full) continue;
        nb::bytes notes = blank(count);
        {
            nb::gil_scoped_release release;
            hg_clicks_cut(place, room, counts, inside(notes));
        }
        return nb::make_tuple(cut(std::move(found), sizeof(int64_t) * count), notes);
    }
}

// Returns the hash, or None where its digits are undecided (product.c).
nb::object multiply_shift(const nb::bytes &key, size_t key_bits, const nb::bytes &seed, size_t out_bits, int level) {
    require(out_bits >= 1 && out_bits < key_bits && key_bits < size_t{1} << 40, "lengths out of range");
    require(key.size() == bytes(key_bits) && seed.size() >= bytes(2 * (key_bits - 1)), "a key or a seed of another length");
    const int there = hg_product_level();
    require(there >= 1 && level >= 1, "this machine has no AVX2 or no FMA instructions");
    require(hg_product_memory(key_bits, out_bits) != 0, "a key that is too long");
    nb::bytes out = blank(bytes(out_bits));
    int code = 0;
    {
        nb::gil_scoped_release release;
        code = hg_multiply_shift(data(key), key_bits, data(seed), seed.size(), out_bits, level < there ? level : there,
                                 inside(out));
    }
    if (code == HG_PRODUCT_NO_MEMORY) throw std::bad_alloc();
    return code == HG_PRODUCT_UNDECIDED ? nb::none() : nb::object(out);
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "The compiled kernels; each has a readable twin in numpy beside it.";
    m.def("sift", &sift, nb::arg("own_bases"), nb::arg("own_bits"), nb::arg("peer_bases"), nb::arg("kinds"),
          nb::arg("peer"), nb::arg("peer_bits"), nb::arg("portable") = false);
    m.def("product_level", &hg_product_level);
    m.def("product_memory", &hg_product_memory, nb::arg("key_bits"), nb::arg("out_bits"));
    m.def("multiply_shift", &multiply_shift, nb::arg("key"), nb::arg("key_bits"), nb::arg("seed"), nb::arg("out_bits"),
          nb::arg("level") = 2);
    m.def("aes_level", &hg_expansion_level);
    m.def("expand", &expand, nb::arg("seed"), nb::arg("slots"), nb::arg("z"), nb::arg("thresholds").none(),
          nb::arg("level") = 2);
    m.def("clicks", &clicks, nb::arg("light"), nb::arg("bases"), nb::arg("dice"), nb::arg("slots"), nb::arg("reals"),
          nb::arg("z"), nb::arg("thresholds"), nb::arg("patterns"), nb::arg("eve"), nb::arg("eve_marks"),
          nb::arg("inverse"), nb::arg("logarithm"), nb::arg("room"), nb::arg("level") = 2);
    nb::class_<Plan>(m, "Plan")
        .def(nb::init<size_t, unsigned, const nb::bytes &, unsigned, nb::sequence, Array<uint64_t>, unsigned, size_t,
                      size_t, bool>(),
             nb::arg("length"), nb::arg("first"), nb::arg("second"), nb::arg("third"), nb::arg("shuffles"), nb::arg("keys"), nb::arg("window"),
             nb::arg("few"), nb::arg("at_once"), nb::arg("portable") = false);
    nb::class_<Block>(m, "Block")
        .def(nb::init<const nb::bytes &, size_t, const Plan &, const Plan &, bool>(), nb::arg("bits"),
             nb::arg("length"), nb::arg("plan"), nb::arg("last"), nb::arg("corrects"), nb::keep_alive<1, 4>(),
             nb::keep_alive<1, 5>())
        .def_prop_ro("count", &Block::count)
        .def("parities", &Block::parities)
        .def("learn", &Block::learn, nb::arg("parities"))
        .def("bits", &Block::bits)
        .def("pattern", &Block::pattern);
    nb::class_<Ldpc>(m, "Ldpc")
        .def(nb::init<size_t, size_t, Array<uint32_t>, Array<uint32_t>, Array<uint32_t>>(), nb::arg("z"),
             nb::arg("width"), nb::arg("starts"), nb::arg("columns"), nb::arg("shifts"))
        .def("syndromes", &Ldpc::syndromes, nb::arg("bits"), nb::arg("first") = 0)
        .def("decode", &Ldpc::decode, nb::arg("syndromes"), nb::arg("channel"), nb::arg("iterations"),
             nb::arg("at_most") = int(HG_LDPC_AVX512));
}
